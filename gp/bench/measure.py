"""Seconds of several ways in turn, their quartiles and ratios; peak memory; ways that run in a process of their own."""

from __future__ import annotations

import gc
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gp.measure.peak_memory import PeakMemory

WARM_UP_ROUNDS = 1
LEAST_SAVING = 0.05  # below it a share of the bound is a share of noise
# glibc keeps freed blocks for reuse, which would count as resident; with these every larger block is given back
PLAIN_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def times(self, factor: float) -> Spread:
        return Spread(self.median * factor, self.low * factor, self.high * factor)


def interleaved(
    ways: Mapping[str, Callable[[], Any]], repeats: int, device: str, what: str = ""
) -> dict[str, list[float]]:
    """Seconds of each way in each round: A B C, A B C, ..., after a round that is not counted.

    Args:
        ways: name -> what to run.
        repeats: rounds that count.
        device: is waited for before and after each run.
        what: for the progress line on stderr; empty: none.
    """
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    gc.collect()
    for number in range(-WARM_UP_ROUNDS, repeats):
        for name, way in ways.items():
            spent_s = timed_s(way, device)
            if number >= 0:
                seconds[name].append(spent_s)
        _progress(what, number + WARM_UP_ROUNDS + 1, repeats + WARM_UP_ROUNDS)
    return seconds


def timed_s(run: Callable[[], Any], device: str) -> float:
    """Seconds of one run; the device's queue is empty before and after."""
    synchronize(device)
    start_s = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start_s


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Of measurements of the same rounds, pair by pair."""
    return Spread.of([a / b for a, b in zip(numerators, denominators, strict=True)])


def share_of_bound(speed_up: float, bound: float) -> float | None:
    """Time saved / time that the bound lets save; negative: slower. None where the bound saves less than 5 %.

    Above 1 where the slower way is further from its own ideal than the faster one.

    Args:
        speed_up: seconds before / seconds after.
        bound: the greatest speed-up that the cost model allows.
    """
    possible = 1 - 1 / bound
    return (1 - 1 / speed_up) / possible if possible >= LEAST_SAVING else None


def peak_of(run: Callable[[], Any], device: str) -> float:
    """Peak memory of a run above what is in use before it, MiB: resident, or allocated by torch on a GPU."""
    gc.collect()
    memory = PeakMemory(torch.device(device))
    run()
    synchronize(device)
    return or_nan(memory.above_mib())


def or_nan(mib: float | None) -> float:
    """A figure for a table where the system may not be able to tell."""
    return math.nan if mib is None else mib


def in_own_process(arguments: Sequence[str], way: str) -> float:
    """Runs this bench again with `--memory-of WAY` in a fresh process; returns the MiB that it prints.

    Args:
        arguments: of `python -m gp.bench`.
        way: what is measured there.
    """
    command = [sys.executable, "-m", "gp.bench", *arguments, "--memory-of", way]
    environment = {**os.environ, **PLAIN_MALLOC}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _progress(what: str, done: int, total: int) -> None:
    if what:
        print(f"\r{what}: round {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
