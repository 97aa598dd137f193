"""Honest seconds on devices that work asynchronously."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Seconds between readings; at every reading the device's queue is empty."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._last = self._now()

    def lap(self) -> float:
        """Seconds since the last reading."""
        now = self._now()
        self._last, seconds = now, now - self._last
        return seconds

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
