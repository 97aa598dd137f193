"""The spread of the kept-token ratio over the prompts of a training batch, as a histogram in TensorBoard.

The ratio of the whole batch is the scalar `train/keep_ratio`, which the module logs: it has the sums of all processes.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from gp.training.loggers import tensorboard_writer
from gp.training.steps import ends_step

TAG = "train/keep_ratio_hist"


class KeptRatio(pl.Callback):
    """Writes a histogram of kept / visual tokens, one value per prompt, at every logging step.

    The prompts are those of the optimizer step (all its micro-batches) on the first process. The counts come from the
    step's own importance logits: nothing is run again.
    """

    def __init__(self) -> None:
        self._micro_batches: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        writer = tensorboard_writer(trainer)
        if writer is None:
            return
        self._micro_batches.append(outputs["num_kept"] / outputs["num_visual"].clamp(min=1))
        if not ends_step(trainer, batch_idx):
            return
        ratios = torch.cat(self._micro_batches)
        self._micro_batches.clear()
        if trainer.global_step % trainer.log_every_n_steps == 0:
            # Lightning numbers the scalars of a step from 0
            writer.add_histogram(TAG, ratios.float().cpu(), trainer.global_step - 1)
