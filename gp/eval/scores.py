"""Answers, masks and kept shares of every row: torchmetrics, fed as batches are answered, synced over processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torchmetrics import MetricCollection

from gp.config.sets import set_options
from gp.eval.plan import OWN_GLIMPSE, UNPRUNED, Method
from gp.eval.results import Result
from gp.metrics import (
    AnswerScorers,
    AnswerScores,
    Calibration,
    CropShares,
    EvidenceRecall,
    KeepRatio,
    MaskScores,
    MeanMaskIoU,
    MeanShares,
    crop_shares,
)
from gp.metrics.calibration import NUM_BINS

if TYPE_CHECKING:
    from gp.eval.module import EvalModule

SHARES = ("cache_ratio", "compute_ratio", "kv_keep_ratio")
EXACT_MATCH = "exact_match"  # its figure is `answer_accuracy`
VIP_ECE = "vip_ece"  # of the row whose importance is compared with the evidence
ANSWERS = ("answer_accuracy", "answer_accuracy_unpruned", "agreement")


class RowScores(pl.Callback):
    """Owns the metrics of every split and row, and computes them at the end, in every process.

    A question counts when all rows have answered it. What an earlier command has answered is fed at the start, each
    question in one process; the rest comes from `test_step`.

    `figures` (split -> row -> name -> number) are there after the last batch, and in `trainer.callback_metrics` and
    loggers as `SPLIT/ROW/NAME`; and `reliability` (split -> name -> a number per bin), where `glimpse` has a row
    without a budget: `predicted`, `observed` and `tokens` of `gp.metrics.Calibration`.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, dict[Method, MetricCollection]] = {}
        self.figures: dict[str, dict[Method, dict[str, float]]] = {}
        self.reliability: dict[str, dict[str, list[float]]] = {}

    def on_test_start(self, trainer: pl.Trainer, module: EvalModule) -> None:
        for run in module.runs:
            scores = set_options(module.config.eval, run.split).scores
            self.metrics[run.split] = {method: row_metrics(module.group, scores) for method in run.methods}
        for run in module.runs:
            update_rows(
                self.metrics[run.split], run.results_of(run.finished[trainer.global_rank :: trainer.world_size])
            )

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        module: EvalModule,
        outputs: Mapping[Method, Sequence[Result]],
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        update_rows(self.metrics[module.runs[dataloader_idx].split], outputs)

    def on_test_epoch_end(self, trainer: pl.Trainer, module: EvalModule) -> None:
        module.wait()  # for hours, maybe; then compute meets no process that is still busy
        self.figures = {split: compute_rows(rows) for split, rows in self.metrics.items()}
        self.reliability = {split: curve for split, rows in self.metrics.items() if (curve := _reliability(rows))}
        log_rows(module, self.figures)


def row_metrics(group: Any = None, scores: Sequence[str] = ()) -> MetricCollection:
    """Metrics of one row; they are kept on the CPU, as the results are.

    Args:
        group: of processes that `compute` syncs, for tensors on the CPU; None: this process alone.
        scores: names of scorers, see `gp.metrics.SCORERS`.
    """
    options = {"process_group": group, "sync_on_compute": group is not None}
    metrics = {
        "answers": AnswerScores(**options),
        "scorers": AnswerScorers([name for name in scores if name != EXACT_MATCH], **options),
        "masks": MaskScores(**options),
        "evidence_recall": EvidenceRecall(**options),
        "mean_iou": MeanMaskIoU(**options),
        "keep_ratio": KeepRatio(**options),
        "crops": CropShares(**options),
        "shares": MeanShares(SHARES, most=None, **options),  # what is seen again counts twice
        "calibration": Calibration(**options),
    }
    return MetricCollection(metrics, compute_groups=False)  # groups are guessed from equal states, which are no proof


def figure_of(score: str) -> str:
    """The key of a scorer's mean in a row."""
    return "answer_accuracy" if score == EXACT_MATCH else score


def update_rows(rows: Mapping[Method, MetricCollection], results: Mapping[Method, Sequence[Result]]) -> None:
    """Adds n samples to all rows.

    Args:
        rows: metrics of each row.
        results: of each row, for the same samples in the same order; `none` is among them.
    """
    unpruned = [result.prediction for result in results[UNPRUNED]]
    for method, metrics in rows.items():
        row = results[method]
        shares = [(r.visual_cached / r.num_visual, r.visual_run / r.num_visual, r.kv_kept / r.kv_full) for r in row]
        crops = [
            crop_shares(r.num_crops, r.in_crops or 0, none.tp + none.fn, r.num_encoded, r.num_visual)
            for r, none in zip(row, results[UNPRUNED], strict=True)
            if r.num_crops is not None
        ]
        calibrations = [r.calibration for r in row if r.calibration is not None]
        metrics.update(
            predictions=[r.prediction for r in row],
            answers=[r.answer for r in row],
            unpruned=unpruned,
            counts=torch.tensor([(r.tp, r.fp, r.fn) for r in row], dtype=torch.long).reshape(-1, 3),
            num_kept=torch.tensor([r.num_kept for r in row], dtype=torch.long),
            num_visual=torch.tensor([r.num_visual for r in row], dtype=torch.long),
            calibration=torch.tensor(calibrations, dtype=torch.long).reshape(-1, NUM_BINS, 3),
            shares=torch.tensor(shares, dtype=torch.double).reshape(-1, len(SHARES)),
            crops=torch.tensor(crops, dtype=torch.double).reshape(-1, 4),
        )


def compute_rows(rows: Mapping[Method, MetricCollection]) -> dict[Method, dict[str, float]]:
    """Figures of every row by name, of all processes; every process must call it."""
    return {method: _compute(metrics) for method, metrics in rows.items()}


def log_rows(module: pl.LightningModule, figures: Mapping[str, Mapping[Method, Mapping[str, float | None]]]) -> None:
    """Logs split -> row -> name -> number; the processes have met before. What was not measured is not logged."""
    for split, rows in figures.items():
        for method, row in rows.items():
            known = {f"{split}/{method.label}/{name}": value for name, value in row.items() if value is not None}
            module.log_dict(known, add_dataloader_idx=False)


def _compute(metrics: MetricCollection) -> dict[str, float]:
    answers = metrics["answers"].compute()
    figures = {
        "keep_ratio": metrics["keep_ratio"].compute()["keep_ratio"],
        **metrics["shares"].compute(),
        **{name: answers[name] for name in ANSWERS if name in answers},
        **metrics["scorers"].compute(),
        **{f"mask_{name}": score for name, score in metrics["masks"].compute().items()},
        "evidence_recall": metrics["evidence_recall"].compute(),
        "mask_mean_iou": metrics["mean_iou"].compute(),
        **metrics["crops"].compute(),
    }
    calibration = metrics["calibration"].compute()
    if calibration["tokens"].sum() > 0:
        figures[VIP_ECE] = calibration["ece"]
    return {**{name: float(value) for name, value in figures.items()}, "num_samples": int(answers["num_samples"])}


def _reliability(rows: Mapping[Method, MetricCollection]) -> dict[str, list[float]]:
    """The curve of one split; empty where no importance was predicted. Every process must call it."""
    if OWN_GLIMPSE not in rows:
        return {}
    curve = {name: values.tolist() for name, values in rows[OWN_GLIMPSE]["calibration"].compute().items()}
    del curve["ece"]  # it is a figure of the row
    return curve if sum(curve["tokens"]) else {}
