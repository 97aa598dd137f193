"""Arguments of `lightning.Trainer` that have no option of their own: `trainer.extra` hands them over unchanged."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl

from gp.config.fitting import nearest

OWN = {  # argument -> the option that says it
    "accelerator": "trainer.accelerator",
    "accumulate_grad_batches": "trainer.accumulate_grad_batches",
    "callbacks": "the options of the section trainer",
    "check_val_every_n_epoch": "trainer.val_every",
    "default_root_dir": "runs_dir and name",
    "devices": "trainer.devices",
    "gradient_clip_val": "trainer.gradient_clip_val",
    "log_every_n_steps": "trainer.log_every",
    "logger": "trainer.logger",
    "max_steps": "optim.max_steps",
    "num_nodes": "trainer.num_nodes",
    "plugins": "trainer.precision, and SLURM's own variables",
    "precision": "trainer.precision",
    "strategy": "trainer.strategy",
    "use_distributed_sampler": "the data, which deal themselves to processes",
    "val_check_interval": "trainer.val_every",
}


def check_extra(extra: Mapping[str, Any]) -> None:
    """Checks the names in `trainer.extra`.

    Raises:
        ValueError: lightning.Trainer has no such argument, or an option of ours says it.
    """
    known = [name for name in inspect.signature(pl.Trainer.__init__).parameters if name not in ("self", *OWN)]
    for name in extra:
        if name in OWN:
            raise ValueError(f"trainer.extra.{name}: this is said by {OWN[name]}")
        if name not in known:
            raise ValueError(
                f"trainer.extra.{name}: lightning.Trainer has no such argument; the nearest one is "
                f"{nearest(name, known)!r}"
            )
