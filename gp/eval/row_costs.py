"""Time and memory of every row as metrics: each row is measured in one process, all processes know the figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torchmetrics import MeanMetric, MetricCollection

from gp.eval.costs import NOT_MEASURED, NUM_BATCHES, RowCost, costs_path, measure_costs
from gp.eval.plan import OWN_GLIMPSE, Method
from gp.eval.results import read_results
from gp.eval.runner import SplitRun, kept_by_id
from gp.eval.scores import log_rows
from gp.progress import Progress

if TYPE_CHECKING:
    from gp.eval.module import EvalModule

NAMES = tuple(field.name for field in fields(RowCost))


class RowCosts(pl.Callback):
    """Owns the costs of every row; they are taken when all questions are answered, once: they tell of the model.

    `figures` (split -> row -> `RowCost`, the same for all splits) are there then, and in `trainer.callback_metrics` and
    loggers as `SPLIT/ROW/NAME`.
    """

    def __init__(self) -> None:
        self.metrics: dict[Method, MetricCollection] = {}
        self.figures: dict[str, dict[Method, RowCost]] = {}

    def on_test_epoch_end(self, trainer: pl.Trainer, module: EvalModule) -> None:
        if not module.config.eval.costs:
            self.figures = {run.split: dict.fromkeys(run.methods, NOT_MEASURED) for run in module.runs}
            return
        first = module.runs[0]
        self.metrics = {method: cost_metrics(module.group) for method in first.methods}
        measured = self._measure(trainer, module, first)
        for method, metrics in self.metrics.items():
            update_costs(metrics, measured.get(method, NOT_MEASURED))
        module.wait()
        rows = {method: compute_costs(metrics) for method, metrics in self.metrics.items()}
        self.figures = {run.split: rows for run in module.runs}
        log_rows(module, {split: {m: asdict(cost) for m, cost in rows.items()} for split in self.figures})

    def _measure(self, trainer: pl.Trainer, module: EvalModule, run: SplitRun) -> dict[Method, RowCost]:
        """Costs of the rows that fall to this process, on the first questions of a split."""
        rank, methods = trainer.global_rank, rows_to_measure(run.methods, trainer, module)
        if not methods:
            return {}
        batches = module.first_batches(run.split)[:NUM_BATCHES]
        num_keep = kept_by_id(read_results(run.folder, run.split, OWN_GLIMPSE))
        console = module.console if trainer.is_global_zero else None
        with Progress(f"time and memory, on {run.split}", len(methods), unit="rows", console=console) as progress:

            def advance(method: Method) -> None:
                progress.update(method.label, advance=1)

            path, seed = costs_path(module.out, rank), module.config.seed
            return measure_costs(module.model, batches, methods, seed, num_keep, path, run.split, advance)


def rows_to_measure(methods: list[Method], trainer: pl.Trainer, module: EvalModule) -> list[Method]:
    """Rows that a process measures.

    Processes on CPUs share cores: two that measure at the same time would be in each other's figures. So the first one
    measures alone, and the others wait without work. GPUs are one process's own, each measures its share.
    """
    if module.model.backbone.device.type == "cpu":
        return methods if trainer.is_global_zero else []
    return methods[trainer.global_rank :: trainer.world_size]


def cost_metrics(group: Any = None) -> MetricCollection:
    """One mean per field of `RowCost`, of the one process that knows it; `group` as of `row_metrics`."""
    options = {"process_group": group, "sync_on_compute": group is not None, "nan_strategy": "ignore"}
    metrics = MetricCollection({name: MeanMetric(**options) for name in NAMES}, compute_groups=False)
    return metrics.set_dtype(torch.double)


def update_costs(metrics: MetricCollection, cost: RowCost) -> None:
    """Adds what this process knows of a row."""
    values: Mapping[str, float | None] = asdict(cost)
    for name, metric in metrics.items():
        metric.update(torch.tensor([math.nan if values[name] is None else values[name]], dtype=torch.double))


def compute_costs(metrics: MetricCollection) -> RowCost:
    """What any process knows of a row; None where none does."""
    values = {name: float(metric.compute()) for name, metric in metrics.items()}
    return RowCost(**{name: None if math.isnan(value) else value for name, value in values.items()})
