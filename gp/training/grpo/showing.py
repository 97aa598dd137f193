"""A few drawn answers with their rewards as text in TensorBoard."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from gp.training.loggers import tensorboard_writer
from gp.training.steps import ends_step

TAG = "train/rollouts"


class ShowRollouts(pl.Callback):
    """Writes the answers to the first questions of a step, on the first process, at every logging step.

    Args:
        num_questions: 0 turns it off.
    """

    def __init__(self, num_questions: int) -> None:
        self.num_questions = num_questions

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        writer = tensorboard_writer(trainer) if self.num_questions else None
        if writer is None or not ends_step(trainer, batch_idx) or trainer.global_step % trainer.log_every_n_steps:
            return
        for number, text in enumerate(outputs["rollouts"][: self.num_questions]):
            writer.add_text(f"{TAG}/{number}", text, trainer.global_step - 1)  # Lightning numbers steps from 0
