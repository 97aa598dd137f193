"""Kept tokens painted over a few validation images, in TensorBoard, at every validation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import numpy as np

from gp.data.batch import Batch
from gp.data.painting import paint_sample

MAX_SIDE_PX = 448  # event files should stay small


class PaintKept(pl.Callback):
    """Paints the first images of the validation split, the same ones every time, from the masks of validation itself.

    Tags: `val/kept/{number}` for the image, and beside it a text with question, right answer and the model's answer.

    Args:
        num_images: 0 turns it off.
    """

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images
        self._num_painted = 0

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._num_painted = 0

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: dict[str, Any],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.logger is None or not trainer.is_global_zero:
            return
        with _writer(trainer) as writer:
            self._paint(trainer, writer, outputs, batch)

    def _paint(self, trainer: pl.Trainer, writer: Any, outputs: dict[str, Any], batch: Batch) -> None:
        step = trainer.global_step - int(trainer.state.fn == "fit")  # where Lightning puts the figures of validation
        of_samples = zip(batch.samples, outputs["keep_masks"], outputs["answers"], batch.frames)
        for sample, keep_mask, answer, frame in of_samples:
            if self._num_painted >= self.num_images:
                return
            tag = f"val/kept/{self._num_painted}"
            painted = paint_sample(sample, keep_mask, frame, MAX_SIDE_PX)
            writer.add_image(tag, np.asarray(painted), step, dataformats="HWC")
            kept = f"{int(keep_mask.sum())} of {keep_mask.numel()} tokens"
            writer.add_text(tag, f"{sample.question} — right: {sample.answer}; model: {answer} ({kept})", step)
            self._num_painted += 1


@contextmanager
def _writer(trainer: pl.Trainer) -> Iterator[Any]:
    """TensorBoard's writer; in Lightning's sanity check one whose events are thrown away: it is no validation."""
    writer = trainer.logger.experiment
    if not trainer.sanity_checking:
        yield writer
        return
    with TemporaryDirectory() as folder, type(writer)(folder) as thrown_away:
        yield thrown_away
