"""Processes beside the tests, and some that are killed with SIGKILL at random points."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import torch

PATIENCE_S = 300


def run_to_end(target: Callable, *arguments) -> None:
    """Raises AssertionError if the process fails."""
    process = start(target, *arguments)
    assert (status := wait(process)) == 0, f"exit status {status}"


def kill_at(target: Callable, arguments: tuple, logs: Callable[[], Sequence[Path]], line: int, delay_s: float) -> bool:
    """Kills the process so many seconds after a new line of its logs that have `line` then.

    Returns:
        False if the process was finished before.
    """
    line = max(line, count_lines(logs()))
    process = start(target, *arguments)
    limit = time.monotonic() + PATIENCE_S
    while process.exitcode is None and count_lines(logs()) <= line and time.monotonic() < limit:
        time.sleep(0.002)
    time.sleep(delay_s)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
    status = wait(process)
    assert status in (0, -signal.SIGKILL), f"exit status {status}"
    assert is_gone(process.pid), "it has left processes behind"
    return status != 0


def is_gone(group: int) -> bool:
    """Whether a process and all that it has started end within some seconds."""
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def start(target: Callable, *arguments, **options) -> multiprocessing.Process:
    """In a forked process: the libraries are imported already, and a start takes no seconds."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(target, arguments, options))
    process.start()
    return process


def wait(process: multiprocessing.Process) -> int | None:
    """The exit status. `join` would wait for the children of a killed process, too: they hold its pipe."""
    limit = time.monotonic() + PATIENCE_S
    while process.exitcode is None and time.monotonic() < limit:
        time.sleep(0.01)
    if (status := process.exitcode) is None:
        os.killpg(process.pid, signal.SIGKILL)
    return status


def count_lines(paths: Sequence[Path]) -> int:
    """Whole lines of the files that exist."""
    return sum(path.read_bytes().count(b"\n") for path in paths if path.is_file())


def points(seed: int, count: int, last: int) -> list[tuple[int, float]]:
    """Random points of a run in order: after so many lines of its log, and then so many seconds."""
    rng = Random(seed)
    return [(line, rng.random() * 0.1) for line in sorted(rng.randrange(last) for _ in range(count))]


def _run(target: Callable, arguments: tuple, options: dict) -> None:
    os.setpgid(0, 0)
    torch.set_num_threads(1)  # a forked process has lost the threads that OpenMP counts on
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    target(*arguments, **options)
