"""Progress of a run: a bar with loss and kept ratio on a terminal, readable lines everywhere else."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console

from gp.progress import Progress
from gp.training.schedule import Length


class TrainingProgress(ProgressBar):
    """One bar over all optimizer steps; without a terminal a line at every logging step. Validation leaves a line.

    `length` is set where the number of training samples is known.

    Args:
        console: None: standard output.
    """

    length: Length | None = None

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console
        self._is_disabled = False
        self._progress: Progress | None = None

    def disable(self) -> None:
        """Lightning calls it on all processes but the first."""
        self._is_disabled = True

    def enable(self) -> None:
        self._is_disabled = False

    def epoch(self, trainer: pl.Trainer) -> str:
        """`epoch 1.25/3`; nothing if it is not known what an epoch is."""
        if self.length is None or self.length.num_samples is None:
            return ""
        done, total = (self.length.epochs(step) for step in (trainer.global_step, trainer.max_steps))
        return f"epoch {done:.2f}/{total:.3g}"

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self._is_disabled:
            steps, console = (trainer.max_steps, trainer.global_step), self._console or Console()
            self._progress = Progress("train step", *steps, console=console, every_s=0)
            self._progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._progress is None:
            return
        is_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self._progress.has_bar or (is_step and trainer.global_step % trainer.log_every_n_steps == 0):
            texts = (self.epoch(trainer), describe(trainer.callback_metrics, "train"))
            self._progress.update("  ".join(text for text in texts if text), completed=trainer.global_step)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *rest: Any
    ) -> None:
        if self._progress is not None and self._progress.has_bar:
            self._progress.update(f"validation, batch {batch_idx + 1}")

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._is_disabled or trainer.sanity_checking:
            return
        console = self._progress.console if self._progress is not None else self._console or Console()
        line = f"val step {trainer.global_step}/{trainer.max_steps}  {describe(trainer.callback_metrics, 'val')}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


SHOWN = {
    "train": {"loss": "loss", "reward": "reward", "keep_ratio": "kept"},
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
