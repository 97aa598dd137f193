"""Number of optimizer steps of a run, and the learning rate of each: linear warm-up, then a cosine down to a floor.

A run that goes on with other steps (another number of processes, batch size or accumulation) counts in samples: what
was read is as many steps of the new size, and `shift` is how many more these are than the steps that were taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gp.config import OptimConfig, TrainConfig


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Args:
        max_steps: optimizer steps after which it ends, those taken before it was resumed included.
        per_step: samples per optimizer step, over all processes.
        shift: steps of `per_step` that the samples read at some step make, less that step; 0: the run was never resumed
            with steps of another size.
        num_samples: of the training set; None: not known.
        by_samples: whether `optim.epochs` says how long it is: then the schedule follows the samples, too.
    """

    max_steps: int
    per_step: int
    shift: float = 0.0
    num_samples: int | None = None
    by_samples: bool = False

    def epochs(self, step: int) -> float | None:
        """Passes over the training set at an optimizer step; None if it is not known what an epoch is."""
        return None if self.num_samples is None else (step + self.shift) * self.per_step / self.num_samples

    @property
    def schedule_shift(self) -> float:
        """What the learning rate's schedule adds to a step."""
        return self.shift if self.by_samples else 0.0

    def note(self) -> dict[str, Any]:
        """What a checkpoint keeps, for `shift_of`."""
        return {"per_step": self.per_step, "shift": self.shift}


def run_length(config: TrainConfig, world: int, num_samples: int | None, shift: float = 0.0) -> Length:
    """The length of a run on `world` processes; the rest as for `num_steps`."""
    max_steps = num_steps(config, world, num_samples, shift)
    return Length(max_steps, samples_per_step(config, world), shift, num_samples, config.optim.max_steps is None)


def shift_of(note: Mapping[str, Any], step: int, per_step: int, num_read: int | None) -> float:
    """The `Length.shift` of a run that goes on.

    Args:
        note: of `Length.note`, from the checkpoint.
        step: optimizer steps that it has done.
        per_step: samples per step from now on.
        num_read: samples of the training set read so far; None: not known, then as the steps counted them.
    """
    if note["per_step"] == per_step:
        return note["shift"]
    if num_read is None:
        num_read = (step + note["shift"]) * note["per_step"]
    return num_read / per_step - step


def num_steps(config: TrainConfig, world: int, num_samples: int | None, shift: float = 0.0) -> int:
    """Optimizer steps of a run: `optim.max_steps`, or as many whole ones as `optim.epochs` have.

    Args:
        config: the run's.
        world: number of processes.
        num_samples: size of the training set; None: not known.
        shift: see `Length`.

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
    steps = math.floor(optim.epochs * num_samples / per_step - shift + 1e-9)
    if steps < 1:
        raise ValueError(
            f"optim.epochs={optim.epochs:g} of {num_samples} samples is less than one step of {per_step} samples"
        )
    return steps


def samples_per_step(config: TrainConfig, world: int) -> int:
    """Samples of an optimizer step over all processes."""
    return config.data.batch_size * world * config.trainer.accumulate_grad_batches


def lr_factor(step: float, max_steps: float, warmup_steps: int, final_fraction: float = 0.0) -> float:
    """Learning rate of one step, relative to its peak.

    Rises as (step + 1) / warmup_steps, is 1 at the end of the warm-up, and then falls along half a cosine, which
    would reach `final_fraction` at step `max_steps`, one after the last: no step is taken at rate 0.

    Args:
        step: 0-based, the optimizer step about to be taken, not whole after a `Length.shift`; at or
            after `max_steps`: `final_fraction`.
        max_steps: optimizer steps of the run.
        warmup_steps: 0: none.
        final_fraction: floor, 0..1.
    """
    if step < warmup_steps:
        return min(1.0, (step + 1) / warmup_steps)
    progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_cosine(optimizer: Optimizer, config: OptimConfig, max_steps: int, shift: float = 0.0) -> LambdaLR:
    """The scheduler of all parameter groups over `max_steps` optimizer steps, to be stepped once per optimizer step.

    `shift` is added to every step, as if the whole run had had steps of the present size.
    """
    warmup_steps = round(config.warmup_fraction * (max_steps + shift))
    floor = config.final_lr_fraction
    return LambdaLR(optimizer, lambda step: lr_factor(step + shift, max_steps + shift, warmup_steps, floor))
