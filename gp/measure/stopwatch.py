"""Honest seconds on devices that work asynchronously."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


class Stopwatch:
    """Seconds between readings; at every reading the device's queue is empty."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._last = self._now()

    def lap(self) -> float:
        """Seconds since the last reading."""
        now = self._now()
        self._last, seconds = now, now - self._last
        return seconds

    def _now(self) -> float:
        synchronize(self.device)
        return time.perf_counter()


class Marks:
    """Moments inside work that must not be held up: on a GPU events in its queue, elsewhere the host's clock."""

    def __init__(self, device: torch.device | str) -> None:
        self._on_gpu = torch.device(device).type == "cuda"

    def set(self) -> Any:
        """A moment, for `seconds_between`."""
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds_between(self, begin: Any, end: Any) -> float:
        """Seconds from one moment to a later one; on a GPU once the device was waited for."""
        return begin.elapsed_time(end) / 1e3 if self._on_gpu else end - begin


def timed_s(run: Callable[[], Any], device: torch.device | str) -> float:
    """Seconds of one run; the device's queue is empty before and after."""
    watch = Stopwatch(device)
    run()
    return watch.lap()


def synchronize(device: torch.device | str) -> None:
    """Waits until a GPU has done all its work; elsewhere nothing is to be waited for."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
