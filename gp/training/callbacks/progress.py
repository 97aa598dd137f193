"""Progress of a run: a bar with loss and kept ratio on a terminal, readable lines everywhere else."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def make_progress() -> ProgressBar:
    """A rich bar if somebody is looking at it, lines of text in a file or in CI."""
    return RichProgress() if Console().is_terminal else PlainProgress()


class _Progress(ProgressBar):
    """What Lightning asks of a progress bar: `disable` is called on all processes but the first.

    `steps_per_epoch` (optimizer steps, not always whole) is set where the number of training samples is known.
    """

    steps_per_epoch: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.is_disabled = False

    def disable(self) -> None:
        self.is_disabled = True

    def enable(self) -> None:
        self.is_disabled = False

    def epoch(self, trainer: pl.Trainer) -> str:
        """`epoch 1.25/3`; nothing if it is not known what an epoch is."""
        if self.steps_per_epoch is None:
            return ""
        done, total = (step / self.steps_per_epoch for step in (trainer.global_step, trainer.max_steps))
        return f"epoch {done:.2f}/{total:.3g}"


class RichProgress(_Progress):
    """One bar over all optimizer steps, with loss and kept ratio; validation has a second one while it runs."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console
        self._progress: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.is_disabled:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(
            *columns, TimeRemainingColumn(), TextColumn("{task.fields[figures]}"), console=self._console
        )
        self._progress.start()
        self._train = self._progress.add_task(
            "train", total=trainer.max_steps, completed=trainer.global_step, figures=""
        )
        self._validate = self._progress.add_task("validate", total=None, visible=False, figures="")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._progress is not None:
            texts = (self.epoch(trainer), describe(trainer.callback_metrics, "train"))
            figures = "  ".join(text for text in texts if text)
            self._progress.update(self._train, completed=trainer.global_step, figures=figures)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._progress is not None:
            self._progress.reset(self._validate, total=None, visible=True, figures="")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *rest: Any
    ) -> None:
        if self._progress is not None:
            self._progress.update(self._validate, completed=batch_idx + 1)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._progress is None:
            return
        self._progress.update(self._validate, visible=False)
        line = f"step {trainer.global_step}: {describe(trainer.callback_metrics, 'val')}"
        self._progress.console.print(line, highlight=False)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class PlainProgress(_Progress):
    """A line at every logging step and after every validation."""

    def __init__(self) -> None:
        super().__init__()
        self._start_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._start_s = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if is_step and trainer.global_step % trainer.log_every_n_steps == 0:
            self._line(trainer, "train")

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._line(trainer, "val")

    def _line(self, trainer: pl.Trainer, stage: str) -> None:
        if self.is_disabled:
            return
        elapsed_s = time.perf_counter() - self._start_s
        step, epoch = f"{stage} step {trainer.global_step}/{trainer.max_steps}", self.epoch(trainer)
        figures = describe(trainer.callback_metrics, stage)
        print("  ".join(text for text in (step, epoch, f"{elapsed_s:.0f} s", figures) if text), flush=True)


SHOWN = {
    "train": {"loss": "loss", "keep_ratio": "kept"},
    "val": {
        "keep_ratio": "kept",
        "mask_iou": "mask IoU",
        "mask_recall": "mask recall",
        "answer_accuracy": "answers right",
        "answer_accuracy_unpruned": "un-pruned",
    },
}
AS_NUMBER = ("loss", "mask_iou")  # the others are shares


def describe(metrics: dict[str, Any], stage: str) -> str:
    """`loss 0.412, kept 5.3 %`: the figures of `SHOWN` that have been logged."""
    texts = []
    for name, label in SHOWN[stage].items():
        value = metrics.get(f"{stage}/{name}")
        if value is not None:
            texts.append(f"{label} {float(value):.3f}" if name in AS_NUMBER else f"{label} {100 * float(value):.1f} %")
    return ", ".join(texts)
