"""How worker processes are started, so that one that is killed cannot keep its parent from ending.

torch tells its workers to end through an event of `multiprocessing`, whose flag both sides read under one lock. A
worker that is killed while it holds that lock (by the kernel for want of memory, say) leaves it locked for ever, and
the parent, which is about to report that death, waits for it for ever.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from multiprocessing.context import BaseContext
from typing import Any


class StopFlag:
    """What torch's loader and its workers use of an event, on one byte of shared memory and without any lock."""

    def __init__(self, context: BaseContext) -> None:
        self._raised = context.RawValue(ctypes.c_bool, False)

    def is_set(self) -> bool:
        """Whether the parent has told its workers to end."""
        return self._raised.value

    def set(self) -> None:
        """Tells them."""
        self._raised.value = True


def worker_options(num_workers: int, start_method: str | None = None) -> dict[str, Any]:
    """A DataLoader's options for so many worker processes; see `worker_context`."""
    return {"num_workers": num_workers} | (
        {"multiprocessing_context": worker_context(start_method)} if num_workers else {}
    )


def worker_context(start_method: str | None = None) -> BaseContext:
    """A DataLoader's `multiprocessing_context`: the standard one but for the event.

    Args:
        start_method: "fork", "forkserver" or "spawn"; None: Python's default here.

    Raises:
        ValueError: a method that this system does not have.
    """
    stock = type(multiprocessing.get_context(start_method or multiprocessing.get_start_method()))
    return type("WorkerContext", (stock,), {"Event": lambda self: StopFlag(self)})()
