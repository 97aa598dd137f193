"""A loader process that is killed in the worst moment: its parent hears of it, says so and ends."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from multiprocessing import resource_sharer
from threading import Thread

import pytest
import torch
from torch.utils.data import IterableDataset

from gp.data.worker_loader import WorkerDied, WorkerLoader
from gp.runs.ends import words_of
from tests.support.killing import start

PATIENCE_S = 60


class DiesAsking(IterableDataset):
    """Its worker is killed while it asks again and again whether it is to end."""

    def __iter__(self):
        yield torch.zeros(1)
        frames = [frame.frame for frame in inspect.stack() if "done_event" in frame.frame.f_locals]
        asks = frames[0].f_locals["done_event"].is_set
        Thread(target=lambda: [asks() for _ in iter(int, 1)], daemon=True).start()
        sys.setswitchinterval(1e-6)
        for number in range(1000):
            hash(number)  # the other thread takes over somewhere
        os.kill(os.getpid(), signal.SIGKILL)
        yield torch.zeros(1)


class DiesGiving(IterableDataset):
    """Its worker is killed when it is asked for a batch that it has announced."""

    def __iter__(self):
        resource_sharer._ResourceSharer._serve = _die  # the thread that hands out what batches consist of
        while True:
            yield torch.zeros(50_000)


def _die(sharer: object) -> None:
    sharer._listener.accept().close()
    time.sleep(0.3)  # as a busy machine does: the connection is gone before the death is known
    os.kill(os.getpid(), signal.SIGKILL)


def _load(dataset: IterableDataset, start_method: str | None) -> None:
    try:
        for _ in WorkerLoader(dataset, 1, start_method):
            pass
    except Exception as error:
        sys.exit(0 if words_of(error) else 1)
    sys.exit(2)


@pytest.mark.parametrize("dataset", [DiesAsking, DiesGiving])
@pytest.mark.parametrize("start_method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_is_told(dataset, start_method):
    for _ in range(3):
        process = start(_load, dataset(), start_method)
        process.join(PATIENCE_S)
        status = process.exitcode
        process.kill()
        assert status == 0  # None: it waits for ever


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(1)


def _ignoring_runtime_errors(runs_before: int) -> None:
    """Hears of the death where `threading.Condition.notify` would, which goes on after a RuntimeError."""
    for _ in range(runs_before):
        before = signal.getsignal(signal.SIGCHLD)
        next(iter(WorkerLoader(Endless(), 1)))
        signal.signal(signal.SIGCHLD, before)  # as Lightning does at the end of a run
    batches = iter(WorkerLoader(Endless(), 1))
    next(batches)
    (worker,) = multiprocessing.active_children()
    try:
        with suppress(RuntimeError):
            os.kill(worker.pid, signal.SIGKILL)
            time.sleep(PATIENCE_S / 2)
    except WorkerDied as error:
        sys.exit(0 if words_of(error) else 1)
    sys.exit(2)


@pytest.mark.parametrize("runs_before", [0, 1])
def test_a_death_is_told_where_runtime_errors_are_ignored(runs_before):
    process = start(_ignoring_runtime_errors, runs_before)
    process.join(PATIENCE_S)
    status = process.exitcode
    process.kill()
    assert status == 0


def test_what_goes_wrong_elsewhere_is_not_the_loaders_end():
    assert words_of(ConnectionResetError(104, "Connection reset by peer")) is None
