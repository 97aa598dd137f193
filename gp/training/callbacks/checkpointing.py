"""`last.ckpt`: everything a run needs to go on, written every few steps, at the end, and when a run ends early."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from torch.optim import Optimizer

from gp.cli import Stop
from gp.stages import stage
from gp.training.signals import Signals


@dataclass(frozen=True)
class Mark:
    """Counters and place in the data after a whole optimizer step."""

    step: int
    fit_loop: dict[str, Any]
    data: dict[str, Any]


class LastCheckpoint(Checkpoint):
    """Keeps one checkpoint file up to date.

    The file is written beside its place and then renamed, so that a kill leaves the old one or the new one, whole. A
    signal ends the run after the step at hand. An error ends it within a step: then the file gets the step before,
    unless the weights were just being changed, or there are several processes, which an error leaves out of step.

    Args:
        path: of the checkpoint.
        every: optimizer steps between writes.
        val_every: optimizer steps between validations: it is written before each, which may fail; None: there are none.
    """

    def __init__(self, path: str | Path, every: int, val_every: int | None = None) -> None:
        self.path = Path(path)
        self.every = every
        self.val_every = val_every
        self.signals = Signals()
        self._saved_step = -1
        self._mark: Mark | None = None  # after the last whole step
        self._is_changing = False  # the weights, from before the optimizer's step to the mark after it
        self._is_saving = False
        self._goes_back = False  # what is saved is the mark

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.ckpt_path is not None and Path(trainer.ckpt_path).resolve() == self.path.resolve():
            self._saved_step = checkpoint["global_step"]

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """After an error, takes the counters and the place in the data back to where the weights are."""
        if not self._goes_back:
            return
        checkpoint["loops"]["fit_loop"] = self._mark.fit_loop
        name = type(trainer.datamodule).__qualname__
        if name in checkpoint:
            checkpoint[name] = self._mark.data

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.signals.catch()

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer) -> None:
        self._is_changing = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._set_mark(trainer)
        is_last = self.signals.came_to_anybody(trainer)
        due = any(trainer.global_step % every == 0 for every in (self.every, self.val_every) if every is not None)
        if due or is_last:
            self._save(trainer)  # Lightning validates after this hook
        if is_last:
            raise Stop(self.signals.status)

    def on_validation_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if self.signals.number is not None and not trainer.sanity_checking:
            raise Stop(self.signals.status)  # it was written before the validation

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.global_step != self._saved_step:
            self._save(trainer)
        self.signals.release()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        mark = self._mark
        if mark is not None and mark.step != self._saved_step and not self._is_changing and not self._is_saving:
            self._goes_back = True
            self._save(trainer)
        self.signals.release()

    def how_to_go_on(self) -> str:
        """What is on disk, and the setting that goes on from there."""
        saved = f"{self.path} holds step {self._saved_step}: go on with ckpt=last"
        return saved if self._saved_step > 0 else "nothing was saved yet"

    def _set_mark(self, trainer: pl.Trainer) -> None:
        if trainer.world_size == 1:
            data = trainer.datamodule.state_dict() if trainer.datamodule is not None else {}
            self._mark = Mark(trainer.global_step, trainer.fit_loop.state_dict(), data)
        self._is_changing = False

    def _save(self, trainer: pl.Trainer) -> None:
        self._is_saving = True
        with stage(f"writing {self.path} after step {trainer.global_step}"):
            save_whole(trainer, self.path)
        self._is_saving = False
        self._saved_step = trainer.global_step


def save_whole(trainer: pl.Trainer, path: Path) -> None:
    """Writes a checkpoint beside its place and renames it; called on all processes: each adds where its data stand."""
    unfinished = path.with_name(path.name + ".tmp")
    trainer.save_checkpoint(unfinished)
    if trainer.is_global_zero:
        os.replace(unfinished, path)
