"""`last.ckpt`: everything a run needs to go on, written every few steps and at the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from gp.stages import stage


class LastCheckpoint(Checkpoint):
    """Keeps one checkpoint file up to date.

    The file is written beside its place and then renamed, so that a kill leaves the old one or the new one, whole.

    Args:
        path: of the checkpoint.
        every: optimizer steps between writes.
        val_every: optimizer steps between validations: it is written before each, which may fail; None: there are none.
    """

    def __init__(self, path: str | Path, every: int, val_every: int | None = None) -> None:
        self.path = Path(path)
        self.every = every
        self.val_every = val_every
        self._saved_step = -1

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.ckpt_path is not None and Path(trainer.ckpt_path).resolve() == self.path.resolve():
            self._saved_step = checkpoint["global_step"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if any(trainer.global_step % every == 0 for every in (self.every, self.val_every) if every is not None):
            self._save(trainer)  # Lightning validates after this hook

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            print(f"\ninterrupted after step {trainer.global_step}; {self.how_to_go_on()}", flush=True)

    def how_to_go_on(self) -> str:
        """What is on disk, and the setting that goes on from there."""
        saved = f"{self.path} holds step {self._saved_step}: go on with ckpt=last"
        return saved if self._saved_step > 0 else "nothing was saved yet"

    def _save(self, trainer: pl.Trainer) -> None:
        with stage(f"writing {self.path} after step {trainer.global_step}"):
            save_whole(trainer, self.path)
        self._saved_step = trainer.global_step


def save_whole(trainer: pl.Trainer, path: Path) -> None:
    """Writes a checkpoint beside its place and renames it; called on all processes: each adds where its data stand."""
    unfinished = path.with_name(path.name + ".tmp")
    trainer.save_checkpoint(unfinished)
    if trainer.is_global_zero:
        os.replace(unfinished, path)
