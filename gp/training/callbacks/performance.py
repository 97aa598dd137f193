"""Seconds per optimizer step, samples and tokens per second, waiting for data, and peak memory."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

from gp.data.batch import Batch
from gp.measure.peak_memory import lifetime_peak_mib
from gp.measure.stopwatch import Stopwatch
from gp.training.steps import ends_step


class Performance(pl.Callback):
    """Logs at every logging step what was measured since the previous one.

    `perf/step_s`: wall time between optimizer steps, waiting for data included and validation not.
    `perf/samples_per_s`, `perf/tokens_per_s`: of all processes; tokens are those of prompts, visual ones included, and
    answers, without padding.
    `perf/data_wait`: share of the time in which this process had no batch to work on; only of a `gp.data.timed` loader.
    `perf/peak_mib`: peak of this process so far: memory that torch allocated on the GPU, or resident memory on the CPU.
    """

    def __init__(self) -> None:
        self._watch = Stopwatch("cpu")
        self._trained_s = 0.0
        self._from_step = 0
        self._num_samples = 0
        self._num_tokens: torch.Tensor | int = 0  # on the device, which it does not wait for
        self._waited_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._watch = Stopwatch(trainer.strategy.root_device)
        self._start_over(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._trained_s += self._watch.lap()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._watch.lap()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._num_samples += len(batch)
        self._num_tokens = self._num_tokens + batch.sent["attention_mask"].sum() + batch.answer_mask.sum()
        step = trainer.global_step
        if not ends_step(trainer, batch_idx) or step % trainer.log_every_n_steps:
            return
        trained_s = self._trained_s + self._watch.lap()
        figures = {
            "perf/step_s": trained_s / max(1, step - self._from_step),
            "perf/peak_mib": lifetime_peak_mib(trainer.strategy.root_device),
        }
        if (waited_s := _waited_s(trainer)) is not None:
            figures["perf/data_wait"] = (waited_s - self._waited_s) / trained_s
        module.log_dict(figures, batch_size=1)
        rates = {"samples": self._num_samples / trained_s, "tokens": float(self._num_tokens) / trained_s}
        rates = {f"perf/{name}_per_s": value for name, value in rates.items()}
        module.log_dict(rates, batch_size=1, sync_dist=True, reduce_fx="sum")
        self._start_over(trainer)

    def _start_over(self, trainer: pl.Trainer) -> None:
        self._trained_s, self._from_step = 0.0, trainer.global_step
        self._num_samples, self._num_tokens = 0, 0
        self._waited_s = _waited_s(trainer) or 0.0


def _waited_s(trainer: pl.Trainer) -> float | None:
    """Seconds that the training loader has been waited for so far, where it tells."""
    return getattr(trainer.train_dataloader, "waited_s", None)
