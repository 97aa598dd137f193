"""Rehearsal before the first step: what would otherwise fail after minutes of training fails within seconds.

It runs one batch of validation (Lightning's sanity check, with all callbacks), writes and reads a checkpoint, and runs
whatever else it is given, e.g. the rows of the evaluation that follows the training. Nothing of it is left behind: no
figure, no file, no random number drawn. It runs on all processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from gp.cli import Stop, as_typed
from gp.runs import folder as run_folder
from gp.runs.checkpoint import read_checkpoint
from gp.stages import named, stage
from gp.training.callbacks import LastCheckpoint
from gp.training.callbacks.averaging import trained_state
from gp.training.callbacks.checkpointing import save_whole
from gp.training.signals import early_end

BEFORE = "before training"
VALIDATION = f"{BEFORE}: validation of one batch (prune, decode, metrics, painting)"
FILE = "rehearsal.ckpt"
SANITY_STEPS = 1  # batches, for `lightning.Trainer(num_sanity_val_steps=...)`

More = Callable[[], str]  # does more, and says in a few words what it did


class Rehearsal(pl.Callback):
    """Rehearses validation and checkpoint, and knows in which validation a run failed.

    It goes before all other callbacks, so that times and progress start after it. A run that goes on from a checkpoint
    rehearses as a new one does, unless it has no step left.

    Args:
        folder: of the run; the checkpoint is written into it under a name of its own, and deleted.

    `more` is rehearsed too if it is set; `passed` is called on the first process when all of it has passed.
    """

    def __init__(self, folder: Path) -> None:
        self.more: More | None = None
        self.passed: Callable[[], None] | None = None
        self.has_passed = False
        self.failed_stage: str | None = None
        self._path = folder / FILE
        self._start_s = 0.0
        self._done: list[str] = []

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Runs the sanity check of a resumed run here, where its weights are loaded and its loops not yet.

        Lightning itself leaves it out there: it would reset the loops.
        """
        self._start_s = time.perf_counter()
        if trainer.ckpt_path is not None and self._steps_left(trainer):
            with isolate_rng():
                trainer._run_sanity_check()
            trainer.training = True

    def on_sanity_check_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Ends the loader's workers: with the batches that they have ready they would wait for the first validation."""
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop._data_fetcher.teardown()
        loop._data_fetcher = None  # as the loop's own `teardown` leaves it; a validation makes another one
        self._done.append("one batch of validation")

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Rehearses the rest where everything that a checkpoint holds is in place."""
        with isolate_rng():
            with stage(f"{BEFORE}: writing and reading a checkpoint ({self._path})"):
                self._rehearse_checkpoint(trainer, module)
            self._done.append("one checkpoint")
            if self.more is not None:
                self._done.append(self.more())
        self.has_passed = True
        if trainer.is_global_zero:
            if self.passed is not None:
                self.passed()
            seconds = time.perf_counter() - self._start_s
            print(f"  checked  in {seconds:.1f} s: {', '.join(self._done)}", flush=True)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        if trainer.sanity_checking:
            self.failed_stage = VALIDATION
        elif trainer.validating:
            self.failed_stage = f"validation after step {trainer.global_step}"

    def _steps_left(self, trainer: pl.Trainer) -> bool:
        return read_checkpoint(Path(trainer.ckpt_path))["global_step"] < trainer.max_steps

    def _rehearse_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Writes what `last.ckpt` would be, and holds what resuming reads of it against the run."""
        try:
            save_whole(trainer, self._path)
            if trainer.is_global_zero:
                self._check(read_checkpoint(self._path), trainer, module)
        finally:
            if trainer.is_global_zero:
                for path in (self._path, self._path.with_name(FILE + ".tmp")):
                    path.unlink(missing_ok=True)

    def _check(self, checkpoint: dict[str, Any], trainer: pl.Trainer, module: pl.LightningModule) -> None:
        module.check_checkpoint(checkpoint, self._path)
        if checkpoint["global_step"] != trainer.global_step:
            raise ValueError(f"step {checkpoint['global_step']} was read, step {trainer.global_step} was written")
        for name, value in module.state_dict().items():
            if not torch.equal(trained_state(checkpoint)[name], value.cpu()):
                raise ValueError(f"{name} was read with other values than were written")


@contextmanager
def rehearsed(trainer: pl.Trainer, folder: Path, is_new: bool) -> Iterator[None]:
    """Guards a fit: what an earlier run has trained goes once the rehearsal has passed, and a failure is named.

    A validation that fails is named, with what is saved and the command that goes on; an end by a signal, for want of
    memory or of a loader process is one line with the exit status (`gp.cli.Stop`); other errors pass unchanged.

    Args:
        trainer: with a `Rehearsal` and a `LastCheckpoint` among its callbacks.
        folder: of the run, claimed.
        is_new: whether the run does not go on from a checkpoint in that folder.
    """
    rehearsal = find_callback(trainer, Rehearsal)
    if is_new:
        rehearsal.passed = partial(run_folder.remove_trained, folder)
    try:
        yield
    except (Exception, Stop) as error:
        last = find_callback(trainer, LastCheckpoint)
        if (end := early_end(error, last.signals)) is not None:
            line = f"{end[1]} after step {trainer.global_step}; {last.how_to_go_on()}"
            raise Stop(end[0], line if trainer.is_global_zero else "") from error
        if rehearsal.failed_stage is None:
            raise
        before = not rehearsal.has_passed
        remedy = "nothing was trained yet" if before and is_new else _remedy(trainer, folder / run_folder.CONFIG)
        raise named(rehearsal.failed_stage, error, remedy) from error


def find_callback(trainer: pl.Trainer, kind: type[pl.Callback]) -> Any:
    """The trainer's callback of a class."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, kind))


def _remedy(trainer: pl.Trainer, config_path: Path) -> str:
    command = as_typed(f"python train.py --config {config_path} ckpt=last")
    return f"{find_callback(trainer, LastCheckpoint).how_to_go_on()} ({command})"
