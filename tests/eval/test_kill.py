"""Evaluation that is killed with SIGKILL at random points: the same results, nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from gp.eval import evaluate, load_run
from tests.support import commands
from tests.support.eval_results import OVERRIDES, results_in, summary_in
from tests.support.killing import PATIENCE_S, count_lines, kill_at, points, run_to_end
from tests.support.micro_eval import NUM_SAMPLES

METHODS = 6


def run(ckpt: Path, out: Path) -> None:
    """What evaluate.py does, two samples a batch, read by two workers; runs in a process of its own."""
    evaluate(*load_run(ckpt, [*OVERRIDES, "data.eval_batch_size=2", "data.num_workers=2"]), out)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_killed_three_times(micro, evaluated, tmp_path, seed):
    out = tmp_path / "eval"

    def logs() -> list[Path]:
        return list((out / "samples").glob("*.jsonl"))

    kills = [kill_at(run, (micro.ckpt, out), logs, *point) for point in points(seed, 3, METHODS * NUM_SAMPLES)]
    run_to_end(run, micro.ckpt, out)
    assert any(kills)
    found = results_in(out)
    assert all(len({line["id"] for line in lines}) == len(lines) == NUM_SAMPLES for lines in found.values())
    assert found == results_in(evaluated)
    assert summary_in(out) == summary_in(evaluated)


PAUSE = """
import time
from gp.eval.runner import SplitRun
stock = SplitRun.answer
def answer(self, batch):
    time.sleep(0.3)
    return stock(self, batch)
SplitRun.answer = answer
"""
OUT_OF_MEMORY = """
from gp.eval.runner import SplitRun
stock = SplitRun.answer
def answer(self, batch):
    if self.split == "test" and len(self.done[self.methods[0]]) > 1 and "samples" in str(self.folder):
        raise MemoryError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")
    return stock(self, batch)
SplitRun.answer = answer
"""
SETTINGS = ("eval.pruners=[oracle]", "eval.overlays=0", "eval.costs=false", "data.eval_batch_size=1")


def begin(micro, out: Path, patch: str, *more: str) -> subprocess.Popen:
    out.mkdir(exist_ok=True)
    return commands.begin_patched(out, patch, f"ckpt={micro.ckpt}", f"out={out}", *SETTINGS, *more)


def ends_in_a_line(process: subprocess.Popen, out: Path) -> str:
    """The one line on stderr of an end with status 1 that has kept some answers, not all."""
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1 and "Traceback" not in errors, errors
    assert 0 < count_lines(list((out / "samples").glob("*.jsonl"))) < 2 * NUM_SAMPLES
    (line,) = [line for line in errors.splitlines() if line.strip() and "it/s]" not in line]
    return line


def test_a_killed_loader_process_is_told_in_a_line(micro, tmp_path):
    process = begin(micro, tmp_path, PAUSE, "data.num_workers=1")
    limit = time.monotonic() + PATIENCE_S
    while not count_lines(list((tmp_path / "samples").glob("*.jsonl"))):
        assert process.poll() is None and time.monotonic() < limit, process.communicate()
        time.sleep(0.02)
    (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    line = ends_in_a_line(process, tmp_path)
    assert line.startswith("evaluation") and "loads data has died" in line and "go on with the same command" in line


def test_no_memory_is_told_in_a_line(micro, tmp_path):
    line = ends_in_a_line(begin(micro, tmp_path, OUT_OF_MEMORY), tmp_path)
    assert line.startswith("evaluation of split test: row") and "out of memory" in line
