"""`last.ckpt`: everything a run needs to go on, written every few steps and at the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Keeps one checkpoint file up to date.

    The file is written beside its place and then renamed, so that a kill leaves the old one or the new one, whole.

    Args:
        path: of the checkpoint.
        every: optimizer steps between writes.
    """

    def __init__(self, path: str | Path, every: int) -> None:
        self.path = Path(path)
        self.every = every
        self._saved_step = -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if is_step and trainer.global_step % self.every == 0:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            saved = f"{self.path} holds step {self._saved_step}: go on with ckpt=last"
            rest = saved if self._saved_step > 0 else "nothing was saved yet"
            print(f"\ninterrupted after step {trainer.global_step}; {rest}", flush=True)

    def _save(self, trainer: pl.Trainer) -> None:
        """Called on all processes: each adds where its data stand."""
        unfinished = self.path.with_name(self.path.name + ".tmp")
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            os.replace(unfinished, self.path)
        self._saved_step = trainer.global_step
