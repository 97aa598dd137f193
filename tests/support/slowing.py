"""A machine on which every timed call takes one second more than the one before."""

from __future__ import annotations

from gp.eval.plan import UNPRUNED, Method


class Batch(list):
    """As many samples as it has items."""


class Model:
    compile_decode = False

    class backbone:
        class device:
            type = "cpu"


class SlowingClock:
    """Stands for `gp.eval.timing.time_batch`; a pruned prefill costs half, its decoding a quarter.

    `calls` are the batch sizes and methods that were timed.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[int, Method]] = []

    def __call__(self, model, batch, method, seed, num_keep) -> tuple[float, float]:
        self.calls.append((len(batch), method))
        clock = len(self.calls)
        return (clock, clock) if method == UNPRUNED else (0.5 * clock, 0.25 * clock)
