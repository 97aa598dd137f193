"""A DataLoader that ends, with one error that says why, when one of its worker processes is killed.

The kernel kills a worker for want of memory, say. torch notices that, but its loader can then wait for ever, in two
ways:

- Its workers are told to end through an event of `multiprocessing`, whose flag both sides read under one lock. A worker
  that dies with that lock in its hand leaves it locked, and the parent, about to report the death, waits for it.
- The death is told by a RuntimeError out of the handler of SIGCHLD, wherever the program is. Very often it is where the
  next batch has just been ordered, in `threading.Condition.notify`, which ignores RuntimeErrors. The loader then waits
  for the rest of a batch that was half sent.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import DataLoader, IterableDataset


class WorkerDied(Exception):
    """A process that loads data was killed, in torch's words. No RuntimeError: see above."""


class WorkerLoader(DataLoader):
    """A DataLoader of a dataset that makes its batches itself.

    Args:
        dataset: yields batches.
        num_workers: processes that iterate it; 0: this one.
        start_method: of these, "fork", "forkserver" or "spawn"; None: Python's default here.
        options: further ones of a DataLoader.

    Raises:
        ValueError: a start method that this system does not have.
    """

    def __init__(
        self, dataset: IterableDataset, num_workers: int, start_method: str | None = None, **options: Any
    ) -> None:
        context = worker_context(start_method) if num_workers else None
        options |= {"num_workers": num_workers, "multiprocessing_context": context}
        super().__init__(dataset, batch_size=None, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names its private class
        """Raises WorkerDied, from anywhere in the main thread, when a worker is killed."""
        batches = super().__iter__()  # which has set torch's handler
        if self.num_workers:
            tell_deaths()
        return batches


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


def worker_context(start_method: str | None = None) -> BaseContext:
    """The standard `multiprocessing` of that start method but for the event; see `WorkerLoader`."""
    stock = type(multiprocessing.get_context(start_method or multiprocessing.get_start_method()))
    return type("WorkerContext", (stock,), {"Event": lambda self: StopFlag(self)})()


class DeathTeller:
    """A handler of SIGCHLD around torch's, whose RuntimeError it raises as WorkerDied."""

    def __init__(self, stock: Callable[..., Any]) -> None:
        self.stock = stock

    def __call__(self, *signalled: Any) -> None:
        try:
            self.stock(*signalled)
        except RuntimeError as error:
            raise WorkerDied(str(error)) from None


_tellers: list[DeathTeller] = []  # the one of this process


def tell_deaths() -> None:
    """Sets the handler, if it is not set; outside of the main thread nobody can, and torch does not either.

    torch sets its own once in a process. Lightning puts all handlers back at the end of a run, this one too, so the
    loaders of the next run (an evaluation behind a training) would be without.
    """
    number = getattr(signal, "SIGCHLD", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        return
    now = signal.getsignal(number)
    if callable(now) and not isinstance(now, DeathTeller):
        _tellers[:] = [DeathTeller(now)]
    if _tellers and now is not _tellers[0]:
        signal.signal(number, _tellers[0])
