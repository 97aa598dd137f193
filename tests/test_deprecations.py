"""A normal run uses nothing of transformers that is on its way out: train, generate, evaluate."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Tensor
from transformers.utils import logging as transformers_logging

import gp
from gp.data.batch import question_messages
from gp.data.sample import parse_record
from gp.data.shards import read_records
from gp.eval import evaluate, load_run, timing
from gp.training import train as runs
from tests.support.bases import BASES
from tests.support.micro_run import write_config

pytestmark = pytest.mark.core
SIGNS = ("deprecat", "will be removed", "no longer be")


class Kept(logging.Handler):
    """Keeps what is logged, as text."""

    def __init__(self, lines: list[str]):
        super().__init__(logging.WARNING)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def transformers_complaints() -> Iterator[list[str]]:
    """Collects deprecations of transformers, which warns through its logger as well as through `warnings`."""
    transformers_logging.warning_once.cache_clear()  # what was said before is not said again
    lines: list[str] = []
    handler, logger = Kept(lines), logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield lines
    finally:
        logger.removeHandler(handler)
    lines += [str(w.message) for w in caught if issubclass(w.category, FutureWarning) or "transformers" in w.filename]
    lines[:] = [line for line in lines if any(sign in line.lower() for sign in SIGNS)]


def test_both_ways_of_warning_are_heard():
    with transformers_complaints() as heard:
        for _ in range(2):
            transformers_logging.get_logger("transformers.some").warning_once("`a` is deprecated. Use `b` instead.")
        warnings.warn("`c` will be removed in v6", FutureWarning, stacklevel=1)
        transformers_logging.get_logger("transformers.some").warning("something else")
    assert heard == ["`a` is deprecated. Use `b` instead.", "`c` will be removed in v6"]


@pytest.mark.parametrize("family", BASES)
def test_a_normal_run_uses_nothing_deprecated(family, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "ROUNDS", 1)
    monkeypatch.setattr(timing, "DECODED_TOKENS", 2)
    base = BASES[family](tmp_path / "base")
    padding = ["model.do_pad=true"] if family == "llava" else []
    config = write_config(tmp_path, base, "optim.max_steps=1", "eval.num_samples=2", *padding)
    with transformers_complaints() as heard:
        _, folder, _ = runs.train(config)
        model = gp.from_pretrained(base, glimpse=folder / "glimpse")
        model.generate(**prompt(model, tmp_path), num_beams=2, max_new_tokens=2)
        finished = load_run(folder / "last.ckpt", ["eval.pruners=[none,glimpse]", "eval.max_new_tokens=2"])
        rows = evaluate(*finished, tmp_path / "eval")
    assert len(rows) > 1 and not heard


def prompt(model: gp.GlimpseModel, folder: Path) -> dict[str, Tensor]:
    """The first question of the micro shards, as the processor turns it into tensors."""
    shard = str(folder / "val.tar")
    sample = parse_record(next(iter(read_records(shard, "val"))))
    return model.processor.apply_chat_template(
        question_messages(sample), tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
