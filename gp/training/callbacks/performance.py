"""Seconds per optimizer step and peak memory, in TensorBoard."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch


class Performance(pl.Callback):
    """Logs `perf/step_s` and `perf/peak_mib` at every logging step.

    `perf/step_s` is the wall time between optimizer steps, waiting for data included and validation not, averaged
    since the previous logging step. `perf/peak_mib` is the peak of this process so far: memory that torch
    allocated on the GPU, or resident memory on the CPU.
    """

    def __init__(self) -> None:
        self._start_s = 0.0
        self._paused_s = 0.0
        self._pause_start_s = 0.0
        self._from_step = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._restart(trainer.global_step)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._pause_start_s = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._paused_s += time.perf_counter() - self._pause_start_s

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches or step % trainer.log_every_n_steps:
            return
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed_s = time.perf_counter() - self._start_s - self._paused_s
        figures = {"perf/step_s": elapsed_s / max(1, step - self._from_step), "perf/peak_mib": peak_mib(device)}
        module.log_dict(figures, batch_size=1)
        self._restart(step)

    def _restart(self, step: int) -> None:
        self._start_s, self._paused_s, self._from_step = time.perf_counter(), 0.0, step


def peak_mib(device: torch.device) -> float:
    """Peak memory of this process so far, MiB: allocated by torch on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB here
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
