"""Rehearsal of an evaluation: two questions through every row that has work left, before the first long one.

The rows run as they will later, results written and read included, but into a folder that is thrown away.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gp.config import TrainConfig
from gp.config.sets import set_options
from gp.data.batch import Batch, Collator
from gp.data.counts import count_samples
from gp.data.datamodule import GlimpseDataModule
from gp.data.shards import resolve_shards
from gp.eval.costs import kv_cache_mib
from gp.eval.plan import OWN_GLIMPSE, Method, find_reference, plan_rows
from gp.eval.results import read_results
from gp.eval.runner import SplitRun, kept_by_id, prefill_batch
from gp.eval.settings import SETTINGS
from gp.eval.timing import decode_some
from gp.model import GlimpseModel
from gp.stages import named, stage

NUM_QUESTIONS = 2  # padding and ragged answers need two
MAX_NEW_TOKENS = 8
NO_RESULTS = Path("nowhere")


def rehearse_evaluation(model: GlimpseModel, config: TrainConfig) -> str:
    """Rehearses the evaluation that follows a training, as far as the weights do not matter.

    Args:
        model: on its device; in the mode and with the settings that it came with afterwards.
        config: of the run.

    Returns:
        What was done, in a few words.

    Raises:
        ValueError, FileNotFoundError, StageFailed: whatever that evaluation would fail with; names stage and row.
    """
    before = "before training: evaluation (eval.after_training)"
    mode, settings = model.training, model.pruner_settings
    try:
        with stage(before):
            model.pruner_settings = {**settings, **config.eval.methods}
            methods, _ = plan_rows(model, config.eval.pruners, config.eval.budgets, config.eval.thresholds)
            find_reference(methods, config.eval.reference)
            _check_out(config)
        num_rows = rehearse_rows(model.eval(), config, methods, before=before)
    finally:
        model.pruner_settings = settings
        model.train(mode)
    return f"{num_rows} rows of the evaluation"


def rehearse_rows(
    model: GlimpseModel,
    config: TrainConfig,
    methods: Sequence[Method],
    done: Path = NO_RESULTS,
    before: str = "before the evaluation",
) -> int:
    """Runs one small batch through every row that lacks answers: prefill, decode, scores, and what costs are taken of.

    It is the first batch of the first split with work left; of the other splits a batch is read.

    Args:
        model: in eval mode, on its device, with the settings of all pruners.
        config: the sections `eval`, `data` and `model` and the seed are used.
        methods: the rows of the evaluation, in order.
        done: folder of the results that are there.
        before: what stage it is, for errors.

    Returns:
        Number of rows that were run; 0 if there is nothing left to do.

    Raises:
        ValueError, OSError: a row or a split that cannot be run or read; the message names it.
        StageFailed: a library failed in a row; the message names it.
    """
    few, num_rows = replace(config.data, eval_batch_size=NUM_QUESTIONS, num_workers=0), 0
    for split in config.eval.splits:
        data = GlimpseDataModule(few, collator_of(model, config, split), config.seed)
        with stage(f"{before}: reading split {split}"):
            todo = _rows_left(config, split, methods, done)
            batch = next(iter(data.eval_loader(config.data.test[split])), None) if todo else None
        if batch is not None and num_rows == 0:
            _run(model, batch, todo, split, config, before)
            num_rows = len(todo)
    return num_rows


def collator_of(model: GlimpseModel, config: TrainConfig, split: str) -> Collator:
    """Makes batches of a split, whose questions have its suffix."""
    limits = config.model.min_pixels, config.model.max_pixels
    return Collator(model.processor, *limits, suffix=set_options(config.eval, split).suffix)


def _rows_left(config: TrainConfig, split: str, methods: Sequence[Method], done: Path) -> list[Method]:
    """Rows without an answer to every question, and `glimpse` if one of them is matched to it; all if not known."""
    num_samples = count_samples(
        resolve_shards(config.data.test[split], config.data.root, config.data.allow_pipes), config.eval.num_samples
    )
    if not num_samples:
        return list(methods)  # reading it says what is wrong with an empty one
    left = [method for method in methods if len(read_results(done, split, method)) < num_samples]
    needed = {*left, *([OWN_GLIMPSE] if any(method.matched for method in left) else [])}
    return [method for method in methods if method in needed]


def _run(
    model: GlimpseModel, batch: Batch, methods: Sequence[Method], split: str, config: TrainConfig, before: str
) -> None:
    """Rows in order: answers, then what costs are taken of."""
    tokens = min(set_options(config.eval, split).max_new_tokens, MAX_NEW_TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        run = SplitRun(model, split, methods, Path(folder), max_new_tokens=tokens, seed=config.seed)
        try:
            run.answer(batch)
            results = run.results()
        except Exception as error:
            row = (run.current or methods[0]).label
            raise named(f"{before}: row {row} on {len(batch)} questions", error) from error
    num_keep = kept_by_id(results.get(OWN_GLIMPSE, {}))
    batch = batch.to(model.backbone.device)
    for method in methods:
        with stage(f"{before}: time and memory of row {method.label}"):
            prefilled = prefill_batch(model, batch, method, config.seed, num_keep)
            kv_cache_mib(prefilled)
            decode_some(model, batch, prefilled)


def _check_out(config: TrainConfig) -> None:
    """The folder beside the checkpoint is this run's own; another one may hold what would be refused after training."""
    if config.eval.out is not None and (Path(config.eval.out) / SETTINGS).is_file():
        raise ValueError(
            f"eval.out={config.eval.out} holds results of an evaluation, of other weights than this run will have: "
            f"delete it, or name another folder"
        )
