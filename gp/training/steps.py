"""Where an optimizer step ends among the micro-batches that Lightning counts."""

from __future__ import annotations

import lightning.pytorch as pl


def ends_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the optimizer steps with this micro-batch: the last of its step, or of a loader that ends."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
