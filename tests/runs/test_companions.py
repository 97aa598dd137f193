"""What is an echo, and what a failed child means; real processes are in tests/eval/test_ends.py."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from gp.cli import Stop
from gp.runs.companions import Companions, is_echo

BROKEN = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:49567."


def companions(*programs: str, first: bool = True) -> tuple[Companions, list]:
    """With children that run these programs, and Lightning's own list of them."""
    procs = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(launcher=SimpleNamespace(procs=procs)), is_global_zero=first, world_size=1 + len(procs)
    )
    others = Companions(trainer)
    others.adopt()
    return others, procs


@pytest.mark.parametrize(
    ("error", "echo"),
    [
        (RuntimeError(BROKEN), True),
        (torch.distributed.DistNetworkError("closed"), True),
        (RuntimeError("Connection error: the hub does not answer"), False),
        (ValueError(BROKEN), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_what_is_an_echo(error, echo):
    assert is_echo(error) == echo


def test_a_failed_child_gives_its_status():
    others, procs = companions("raise SystemExit(0)", "raise SystemExit(2)")
    assert procs == []  # Lightning's observer has nothing left to kill for
    with pytest.raises(Stop) as stop, others.ending_together():
        raise RuntimeError(BROKEN)
    assert stop.value.status == 2 and "process 2 of this command has ended (status 2)" in stop.value.line


def test_children_end_with_an_error_of_this_process():
    others, _ = companions("import time; time.sleep(60)")
    with pytest.raises(ValueError, match="mine"), others.ending_together():
        raise ValueError("mine")
    with pytest.raises(Stop) as stop:
        others.check()
    assert stop.value.status == 1 and "SIGKILL" in stop.value.line


def test_children_are_waited_for_at_the_end():
    others, _ = companions("import time; time.sleep(0.5)")
    (child,) = others._children
    with others.ending_together():
        pass
    assert child.poll() == 0


@pytest.mark.parametrize(("first", "line"), [(True, "another process of this command has ended"), (False, "")])
def test_only_the_first_process_tells_of_a_broken_connection(first, line):
    others, _ = companions(first=first)
    with pytest.raises(Stop) as stop, others.ending_together():
        raise RuntimeError(BROKEN)
    assert stop.value.status == 1 and (line in stop.value.line if line else stop.value.line == "")


def test_nothing_happens_without_others():
    others, _ = companions()
    others.check()
    others.wait(None)
    with others.ending_together():
        pass
