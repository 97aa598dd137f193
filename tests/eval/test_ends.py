"""Early ends of an evaluation by two processes: one message, a status, no hang, and what was answered is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import commands
from tests.support.eval_results import summary_in
from tests.support.killing import PATIENCE_S, count_lines, is_gone
from tests.support.micro_eval import NUM_SAMPLES

SETTINGS = ("eval.pruners=[oracle]", "eval.overlays=0", "eval.costs=false", "data.eval_batch_size=1")
ROWS = 2
SLOW = """
import os, time
from gp.eval.runner import SplitRun
stock = SplitRun.answer
def answer(self, batch):
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK"))
    if self.split == "test" and "samples" in str(self.folder):
        {how}
    return stock(self, batch)
SplitRun.answer = answer
"""
PAUSE = "time.sleep(1)"


def begin(micro, out: Path, how: str, launcher=(), *more: str) -> subprocess.Popen:
    out.mkdir(exist_ok=True)
    arguments = (f"ckpt={micro.ckpt}", f"out={out}", *SETTINGS, "trainer.devices=2", "trainer.accelerator=cpu", *more)
    return commands.begin_patched(out, SLOW.format(how=how), *arguments, launcher=launcher)


def logs(out: Path, rank: int | str = "*") -> list[Path]:
    return list((out / "samples").glob(f"*.rank{rank}of2.jsonl"))


def wait_for_lines(process: subprocess.Popen, out: Path) -> None:
    """Until both processes have answered something."""
    limit = time.monotonic() + PATIENCE_S
    while not all(count_lines(logs(out, rank)) for rank in range(2)):
        assert process.poll() is None and time.monotonic() < limit, process.communicate()
        time.sleep(0.02)


def end_of(process: subprocess.Popen) -> tuple[int, list[str]]:
    """Status, and what it said on stderr; all that it had started is gone."""
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert is_gone(process.pid)
    # bars of transformers, and what torch says of its own
    lines = [
        line for line in errors.splitlines() if line.strip() and "it/s]" not in line and "warn" not in line.lower()
    ]
    return process.returncode, lines


def goes_on(micro, out: Path) -> None:
    """The same command finishes it: every question once."""
    before = count_lines(logs(out))
    assert 0 < before < ROWS * NUM_SAMPLES
    status, lines = end_of(begin(micro, out, "pass"))
    assert status == 0, lines
    assert count_lines(logs(out)) == ROWS * NUM_SAMPLES
    assert [row["num_samples"] for row in summary_in(out)] == [NUM_SAMPLES] * ROWS


@pytest.mark.parametrize(
    ("number", "send", "status", "line"),
    [
        (signal.SIGTERM, os.kill, 143, "terminated: run the same command again to go on"),
        pytest.param(signal.SIGTERM, os.killpg, 143, "terminated: run the same command", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, os.kill, 130, "interrupted: run the same command", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, os.killpg, 130, "interrupted: run the same command", marks=pytest.mark.slow),
    ],
)
def test_a_signal(micro, tmp_path, number, send, status, line):
    """To the process that was started, or to its whole group as from a terminal."""
    process = begin(micro, tmp_path, PAUSE)
    wait_for_lines(process, tmp_path)
    send(process.pid, number)
    found, lines = end_of(process)
    assert found == status and len(lines) == 1 and lines[0].startswith(line), lines
    goes_on(micro, tmp_path)


@pytest.mark.slow
def test_a_signal_while_one_waits_for_the_other(micro, tmp_path):
    """The first process has answered all of its share and is in a barrier."""
    process = begin(micro, tmp_path, "time.sleep(60 if rank == '1' and self.done[self.methods[1]] else 0)")
    limit = time.monotonic() + PATIENCE_S
    while count_lines(logs(tmp_path, 0)) < ROWS * NUM_SAMPLES // 2:
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    time.sleep(1)
    os.kill(process.pid, signal.SIGTERM)
    found, lines = end_of(process)
    assert found == 143 and len(lines) == 1 and lines[0].startswith("terminated"), lines


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun(micro, tmp_path, number):
    """torchrun has words and a status of its own; of the processes one speaks."""
    process = begin(micro, tmp_path, PAUSE, [*commands.TORCHRUN, commands.free_port()])
    wait_for_lines(process, tmp_path)
    os.killpg(process.pid, number)
    found, lines = end_of(process)
    assert found != 0 and sum("run the same command again" in line for line in lines) == 1, lines
    assert not any("gloo" in line or "Connection closed" in line for line in lines)
    goes_on(micro, tmp_path)


RAISE = """if rank == "{rank}" and self.done[self.methods[0]]:
            time.sleep(1)
            raise {error}
        time.sleep(0.2)"""


@pytest.mark.parametrize(
    ("rank", "error", "status", "words"),
    [
        (1, "AttributeError('no such layer')", 1, "StageFailed: evaluation of split test: row"),
        pytest.param(0, "AttributeError('no such layer')", 1, "StageFailed: eval", marks=pytest.mark.slow),
        pytest.param(1, "ValueError('no such layer')", 2, "error: evaluation of split", marks=pytest.mark.slow),
        pytest.param(0, "ValueError('no such layer')", 2, "error: evaluation of split", marks=pytest.mark.slow),
    ],
)
def test_an_error_in_one_process(micro, tmp_path, rank, error, status, words):
    """It is told once, the other process ends, and what both have answered is on disk."""
    process = begin(micro, tmp_path, RAISE.format(rank=rank, error=error))
    found, lines = end_of(process)
    assert found == status, lines
    told = [line for line in lines if words in line]
    assert len(told) == 1 and "no such layer; answers so far are kept" in told[0], lines
    assert not any("gloo" in line for line in lines)
    assert sum("(most recent call last)" in line for line in lines) == (
        0 if status == 2 else 2
    )  # an error and its cause
    assert all(count_lines(logs(tmp_path, one)) for one in range(2))
    if status == 2:
        goes_on(micro, tmp_path)


@pytest.mark.slow
def test_an_error_in_one_process_of_torchrun(micro, tmp_path):
    launcher = [*commands.TORCHRUN, commands.free_port()]
    process = begin(micro, tmp_path, RAISE.format(rank=1, error="ValueError('no such layer')"), launcher)
    found, lines = end_of(process)
    assert found != 0 and sum("error: evaluation of split test" in line for line in lines) == 1, lines
    assert not any("gloo" in line for line in lines)
    goes_on(micro, tmp_path)


@pytest.mark.slow
def test_a_killed_process_is_named(micro, tmp_path):
    process = begin(micro, tmp_path, PAUSE)
    wait_for_lines(process, tmp_path)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    found, lines = end_of(process)
    assert found == 1 and lines == ["process 1 of this command has ended (SIGKILL), the others do, too"]
    goes_on(micro, tmp_path)
