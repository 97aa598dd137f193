"""Seconds per optimizer step and peak memory, in TensorBoard."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from gp.measure.peak_memory import lifetime_peak_mib
from gp.measure.stopwatch import Stopwatch


class Performance(pl.Callback):
    """Logs `perf/step_s` and `perf/peak_mib` at every logging step.

    `perf/step_s` is the wall time between optimizer steps, waiting for data included and validation not, averaged
    since the previous logging step. `perf/peak_mib` is the peak of this process so far: memory that torch
    allocated on the GPU, or resident memory on the CPU.
    """

    def __init__(self) -> None:
        self._watch = Stopwatch("cpu")
        self._trained_s = 0.0
        self._from_step = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._watch = Stopwatch(trainer.strategy.root_device)
        self._trained_s, self._from_step = 0.0, trainer.global_step

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._trained_s += self._watch.lap()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._watch.lap()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches or step % trainer.log_every_n_steps:
            return
        step_s = (self._trained_s + self._watch.lap()) / max(1, step - self._from_step)
        peak_mib = lifetime_peak_mib(trainer.strategy.root_device)
        module.log_dict({"perf/step_s": step_s, "perf/peak_mib": peak_mib}, batch_size=1)
        self._trained_s, self._from_step = 0.0, step
