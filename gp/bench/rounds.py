"""Several ways in turn, round by round, and what a speed-up is worth."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, TypeVar

from gp.measure.stopwatch import timed_s

Name = TypeVar("Name", bound=Hashable)
LEAST_SAVING = 0.05  # below it a share of the bound is a share of noise


def interleaved(ways: Mapping[str, Callable[[], Any]], repeats: int, device: str, what: str) -> dict[str, list[float]]:
    """Seconds of each way in each round, as `in_turn` measures them.

    Args:
        ways: name -> what to run.
        repeats: rounds that count.
        device: is waited for before and after each run.
        what: for the progress line on stderr.
    """
    gc.collect()
    return in_turn({name: partial(timed_s, way, device) for name, way in ways.items()}, repeats, what)


def in_turn(
    ways: Mapping[Name, Callable[[], float]], repeats: int, what: str, warm_up: int = 1
) -> dict[Name, list[float]]:
    """Figures of each way in each round: A B C, A B C, ..., after rounds that are not counted.

    Args:
        ways: name -> what measures once.
        repeats: rounds that count.
        what: for the progress line on stderr.
        warm_up: rounds before them.
    """
    figures: dict[Name, list[float]] = {name: [] for name in ways}
    for number in range(warm_up + repeats):
        for name, measure in ways.items():
            figure = measure()
            if number >= warm_up:
                figures[name].append(figure)
        show_round(what, number + 1, warm_up + repeats)
    return figures


def show_round(what: str, done: int, total: int) -> None:
    """Keeps one line on stderr, finished after the last round."""
    print(f"\r{what}: round {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def share_of_bound(speed_up: float, bound: float) -> float | None:
    """Time saved / time that the bound lets save; negative: slower. None where the bound saves less than 5 %.

    Above 1 where the slower way is further from its own ideal than the faster one.

    Args:
        speed_up: seconds before / seconds after.
        bound: the greatest speed-up that the cost model allows.
    """
    possible = 1 - 1 / bound
    return (1 - 1 / speed_up) / possible if possible >= LEAST_SAVING else None
