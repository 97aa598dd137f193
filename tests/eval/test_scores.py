"""Metrics of the rows: what the trainer and its loggers have is what the summary says, and what torchmetrics would."""

from __future__ import annotations

import csv

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torchmetrics.classification import BinaryAccuracy

from gp.eval import evaluate, load_run, make_trainer
from gp.eval.module import EvalModule
from gp.eval.plan import Method
from tests.support.eval_results import lines_of

OVERRIDES = ("eval.pruners=[glimpse,random]", "eval.overlays=0", "data.eval_batch_size=2")
COMPARED = ("reference", "difference", "difference_ci95", "difference_p")  # from single answers, of one process
WITHOUT_NUMBER = ("split", "pruner", "budget", "matched", "answer_accuracy_ci95", *COMPARED)


@pytest.fixture
def logged(micro, tmp_path):
    """Rows of an evaluation with a logger, and its trainer."""
    model, config = load_run(micro.ckpt, OVERRIDES)
    trainer = make_trainer(config.trainer)
    trainer.logger = CSVLogger(tmp_path, name="", version="csv")
    return evaluate(model, config, tmp_path / "eval", trainer=trainer), trainer


def label_of(row: dict) -> str:
    return Method(row["pruner"], row["budget"]).label


def test_trainer_and_logger_have_what_the_summary_says(logged, tmp_path):
    rows, trainer = logged
    with (tmp_path / "csv/metrics.csv").open() as file:
        (written,) = csv.DictReader(file)
    for row in rows:
        numbers = {name: value for name, value in row.items() if name not in WITHOUT_NUMBER and value is not None}
        assert {"keep_ratio", "mask_iou", "answer_accuracy", "agreement", "prefill_ratio", "kv_cache_mib"} < set(
            numbers
        )
        for name, value in numbers.items():
            key = f"test/{label_of(row)}/{name}"
            assert float(trainer.callback_metrics[key]) == pytest.approx(value, rel=1e-6, abs=1e-6), key
            assert float(written[key]) == pytest.approx(value, rel=1e-6, abs=1e-6), key


def test_callbacks_own_the_metrics(logged, tmp_path):
    """Each row's collection has seen every question once; the accuracy is that of torchmetrics on the lines."""
    _, trainer = logged
    module = trainer.lightning_module
    assert isinstance(module, EvalModule) and {module.scores, module.costs} <= set(trainer.callbacks)
    assert not list(module.parameters()) and not list(module.children())
    for method, metrics in module.scores.metrics["test"].items():
        lines = lines_of(tmp_path / "eval", method.label).values()
        right = torch.tensor([line["correct"] for line in lines]).int()
        theirs = BinaryAccuracy()(right, torch.ones_like(right))
        assert metrics["answers"].num_samples == len(lines)
        assert float(metrics["answers"].compute()["answer_accuracy"]) == pytest.approx(float(theirs))


def test_a_second_evaluation_starts_at_nothing(micro, logged, tmp_path):
    """The same lines are fed once more, not on top of those of the run before."""
    rows, trainer = logged
    again = evaluate(*load_run(micro.ckpt, OVERRIDES), tmp_path / "eval", trainer=trainer)
    assert again == rows
