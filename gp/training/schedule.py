"""Number of optimizer steps of a run, and the learning rate of each: linear warm-up, then a cosine down to a floor."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gp.config import OptimConfig, TrainConfig


def num_steps(config: TrainConfig, world: int, num_samples: int | None) -> int:
    """Optimizer steps of a run: `optim.max_steps`, or as many whole ones as `optim.epochs` have.

    Args:
        config: the run's.
        world: number of processes.
        num_samples: size of the training set; None: not known.

    Raises:
        ValueError: `optim.epochs` without a known number of samples, or so small that it is no step at all.
    """
    optim = config.optim
    if optim.max_steps is not None:
        return optim.max_steps
    if num_samples is None:
        raise ValueError(
            f"optim.epochs={optim.epochs:g} needs the number of samples of data.train {', '.join(config.data.train)}, "
            "and not all of these shards are in a manifest.json beside them: give optim.max_steps instead, or build "
            "the shards with their manifest"
        )
    per_step = samples_per_step(config, world)
    # a product such as 0.1 * 30 falls short of the whole number that is meant by less than this
    steps = math.floor(optim.epochs * num_samples / per_step + 1e-9)
    if steps < 1:
        raise ValueError(
            f"optim.epochs={optim.epochs:g} of {num_samples} samples is less than one step of {per_step} samples"
        )
    return steps


def samples_per_step(config: TrainConfig, world: int) -> int:
    """Samples of an optimizer step over all processes."""
    return config.data.batch_size * world * config.trainer.accumulate_grad_batches


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


def warmup_cosine(optimizer: Optimizer, config: OptimConfig, max_steps: int) -> LambdaLR:
    """The scheduler of all parameter groups over `max_steps` optimizer steps, to be stepped once per optimizer step."""
    warmup_steps = round(config.warmup_fraction * max_steps)
    return LambdaLR(optimizer, lambda step: lr_factor(step, max_steps, warmup_steps, config.final_lr_fraction))
