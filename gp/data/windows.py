"""Counts of an optimizer step: what all its micro-batches hold together, known before the first one is trained on.

A loss that is a mean over all images or tokens of a step needs their number at the first micro-batch, so the loader
runs ahead by a step. It knows nothing of Lightning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from gp.data.batch import Batch, StepCounts


class StepWindows:
    """Iterates a loader's batches, each with the `StepCounts` of its optimizer step in `Batch.counts`.

    Holds one step's micro-batches in memory, without those that it gave away already.

    Args:
        loader: of one process's micro-batches.
        size: micro-batches per optimizer step; a finite loader's last step may have fewer.
        done: says how many micro-batches of the loader's epoch were trained on before the iteration begins.
        limit: micro-batches after which an epoch, and with it a step, ends; None: where the loader does.
    """

    def __init__(
        self,
        loader: Iterable[Batch],
        size: int,
        done: Callable[[], int] = lambda: 0,
        limit: int | None = None,
    ) -> None:
        self.loader = loader
        self.size = size
        self.done = done
        self.limit = limit

    def __iter__(self) -> Iterator[Batch]:
        done = self.done()
        batches = islice(self.loader, None if self.limit is None else max(self.limit - done, 0))
        left = self.size - done % self.size  # other `accumulate_grad_batches` than before may have left half a step
        while window := deque(islice(batches, left)):
            counts = StepCounts.of(window)
            while window:
                batch = window.popleft()
                batch.counts = counts
                yield batch
            left = self.size
