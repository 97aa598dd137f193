"""Linear warm-up, then a cosine down to a floor: the learning rate as a pure function of the optimizer step."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gp.config import OptimConfig


def lr_factor(step: int, max_steps: int, warmup_steps: int, final_fraction: float = 0.0) -> float:
    """Learning rate of one step, relative to its peak.

    Rises as (step + 1) / warmup_steps, is 1 at the end of the warm-up, and then falls along half a cosine, which
    would reach `final_fraction` at step `max_steps`, one after the last: no step is taken at rate 0.

    Args:
        step: 0-based, the optimizer step about to be taken; at or after `max_steps`: `final_fraction`.
        max_steps: optimizer steps of the run.
        warmup_steps: 0: none.
        final_fraction: floor, 0..1.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_cosine(optimizer: Optimizer, config: OptimConfig) -> LambdaLR:
    """The scheduler of all parameter groups, to be stepped once per optimizer step."""
    warmup_steps = round(config.warmup_fraction * config.max_steps)
    return LambdaLR(optimizer, lambda step: lr_factor(step, config.max_steps, warmup_steps, config.final_lr_fraction))
