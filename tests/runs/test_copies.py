"""Copies of this process: their statuses, and when there are any; evaluations of several are in tests/eval."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from gp.config import TrainerConfig
from gp.runs import copies
from gp.runs.copies import Copy, start_copies

VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Variables as they are now come back afterwards."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def settings(**changes) -> TrainerConfig:
    return TrainerConfig(**{"accelerator": "cpu", "devices": 3, **changes})


def test_copies_know_their_rank_and_give_their_status():
    started = start_copies(settings(), lambda: 10 * int(os.environ["WORLD_SIZE"]) + int(os.environ["LOCAL_RANK"]))
    assert [copy.wait() for copy in started] == [31, 32]
    assert [copy.poll() for copy in started] == [31, 32]
    assert os.environ["LOCAL_RANK"] == os.environ["NODE_RANK"] == "0" and int(os.environ["MASTER_PORT"]) > 0


def test_an_error_is_told_and_status_1(capfd):
    def fails() -> int:
        raise RuntimeError("in a copy")

    assert Copy(1, fails).wait() == 1
    assert "RuntimeError: in a copy" in capfd.readouterr().err


def test_a_copy_goes_no_further_than_its_work(capfd):
    assert Copy(1, lambda: sys.exit(5)).wait() == 1  # an exit is no status: the frame of a command gives one
    print("once")
    assert capfd.readouterr().out == "once\n"


def test_a_copy_can_be_ended():
    copy = Copy(1, lambda: time.sleep(60) or 0)
    assert copy.poll() is None
    copy.kill()
    assert copy.wait() == copy.poll() == -signal.SIGKILL
    copy.kill()  # it is gone


@pytest.mark.parametrize(
    ("changes", "variables"),
    [
        ({"devices": 1}, {}),
        ({"devices": "auto"}, {}),
        ({"devices": "0,1"}, {}),
        ({"strategy": "ddp_spawn"}, {}),
        ({"num_nodes": 2}, {}),
        ({"accelerator": "gpu"}, {}),
        ({}, {"LOCAL_RANK": "0"}),  # as torchrun has it, and a training before
        ({}, {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "gp", "SLURM_PROCID": "0"}),
    ],
)
def test_others_start_the_processes_or_there_is_one(changes, variables, monkeypatch):
    monkeypatch.setattr(copies, "Copy", lambda *arguments: pytest.fail("a copy"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert start_copies(settings(**changes), lambda: 0) == []


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(copies, "Copy", lambda rank, work: rank)
    monkeypatch.setattr(copies.torch.cuda, "is_available", lambda: False)
    assert start_copies(settings(accelerator="auto"), lambda: 0) == [1, 2]
    for name in VARIABLES:
        monkeypatch.delenv(name)
    monkeypatch.setattr(copies.torch.cuda, "is_available", lambda: True)
    assert start_copies(settings(accelerator="auto"), lambda: 0) == []
