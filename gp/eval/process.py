"""Several processes that share one evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Process:
    """This process among those that share an evaluation.

    Args:
        rank: 0 .. world - 1; 0 writes the summary.
        world: number of processes.
        barrier: waits for all of them; None: torch.distributed's.
    """

    rank: int = 0
    world: int = 1
    barrier: Callable[[], object] | None = None

    def wait(self) -> None:
        if self.barrier is not None:
            self.barrier()
        elif self.world > 1:
            torch.distributed.barrier()
