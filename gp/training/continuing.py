"""Settings of a run that goes on, put into the checkpoint that it is loaded from: optimizer, schedule and counters."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

SETTINGS = ("weight_decay", "betas", "initial_lr")


def apply_settings(checkpoint: dict[str, Any], optimizer: Optimizer, scheduler: LambdaLR) -> None:
    """Gives the optimizer's groups and the schedule of a checkpoint the settings of new ones, in place.

    The averages of AdamW stay, and the rate is the new schedule's at the step that comes next.

    Args:
        checkpoint: as Lightning saved it.
        optimizer, scheduler: as they would be at the beginning of a run.
    """
    step = checkpoint["global_step"]
    rates = [base * factor(step) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    (saved,) = checkpoint["optimizer_states"]
    for group, new, rate in zip(saved["param_groups"], optimizer.param_groups, rates, strict=True):
        group.update({name: new[name] for name in SETTINGS}, lr=rate)
    (schedule,) = checkpoint["lr_schedulers"]
    schedule.update(base_lrs=list(scheduler.base_lrs), _last_lr=rates)


def count_batches_anew(checkpoint: dict[str, Any], accumulate: int) -> None:
    """Makes the micro-batches that Lightning has counted those of whole steps of `accumulate` each, in place.

    Lightning's rhythms (steps, validations) are in micro-batches since the beginning.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    more = checkpoint["global_step"] * accumulate - progress["total"]["ready"]
    for counts in (progress["total"], progress["current"]):
        counts.update({name: count + more for name, count in counts.items()})
