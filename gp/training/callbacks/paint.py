"""Kept tokens painted over a few validation images, in TensorBoard, at every validation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import numpy as np

from gp.data.batch import Batch
from gp.data.painting import add_caption, paint_sample
from gp.training.loggers import tensorboard_writer

MAX_SIDE_PX = 448  # event files should stay small


class PaintKept(pl.Callback):
    """Paints the first images of the validation split, the same ones every time, from the masks of validation itself.

    Tags: `val/kept/{number}` for the image with question, right answer and the model's answer below it, and for the
    same as text.

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
        events = tensorboard_writer(trainer)
        if events is None:
            return
        with _for_now(events, trainer.sanity_checking) as writer:
            self._paint(trainer, writer, outputs, batch)

    def _paint(self, trainer: pl.Trainer, writer: Any, outputs: dict[str, Any], batch: Batch) -> None:
        step = trainer.global_step - int(trainer.state.fn == "fit")  # where Lightning puts the figures of validation
        of_samples = zip(batch.samples, outputs["keep_masks"], outputs["answers"], batch.frames)
        for sample, keep_mask, answer, frame in of_samples:
            if self._num_painted >= self.num_images:
                return
            tag = f"val/kept/{self._num_painted}"
            kept = f"{int(keep_mask.sum())} of {keep_mask.numel()} tokens"
            lines = (sample.question, f"right: {sample.answer}", f"model: {answer}", kept)
            painted = add_caption(paint_sample(sample, keep_mask, frame, MAX_SIDE_PX), lines)
            writer.add_image(tag, np.asarray(painted), step, dataformats="HWC")
            writer.add_text(tag, "; ".join(lines), step)
            self._num_painted += 1


@contextmanager
def _for_now(writer: Any, is_check: bool) -> Iterator[Any]:
    """The writer; in Lightning's sanity check one whose events are thrown away: it is no validation."""
    if not is_check:
        yield writer
        return
    with TemporaryDirectory() as folder, type(writer)(folder) as thrown_away:
        yield thrown_away
