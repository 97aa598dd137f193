"""Seconds between readings, and that a device is waited for."""

from __future__ import annotations

import time

import pytest
import torch

from gp.measure import stopwatch
from gp.measure.stopwatch import Marks, Stopwatch, synchronize, timed_s


def test_laps_add_up(monkeypatch):
    clock = iter([1.0, 3.0, 3.5])
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(clock))
    watch = Stopwatch("cpu")
    assert [watch.lap(), watch.lap()] == [2.0, 0.5]


def test_the_device_is_waited_for_before_every_reading(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(str(device)))
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: calls.append("clock") or 0.0)
    timed_s(lambda: calls.append("run"), "cuda:1")
    assert calls == ["cuda:1", "clock", "run", "cuda:1", "clock"]
    calls.clear()
    synchronize("cpu")
    assert not calls


def test_marks_on_the_host():
    marks = Marks("cpu")
    begin = marks.set()
    time.sleep(0.02)
    assert 0.02 <= marks.seconds_between(begin, marks.set()) < 2


@pytest.mark.gpu
def test_marks_in_the_queue_of_a_gpu():
    marks, x = Marks("cuda"), torch.randn(2048, 2048, device="cuda")
    watch, begin = Stopwatch("cuda"), marks.set()
    for _ in range(50):
        x = (x @ x).clamp(-1, 1)
    end = marks.set()
    seconds = watch.lap()
    assert 0.2 * seconds < marks.seconds_between(begin, end) <= 1.1 * seconds
