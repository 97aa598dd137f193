"""The commands on two devices: the figures of one process exactly, every sample once, and nothing lost by a kill."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from gp.data.counts import count_samples
from gp.data.shards import read_records
from gp.eval import evaluate, load_run
from tests.support import commands
from tests.support.eval_results import results_in, summary_in
from tests.support.killing import PATIENCE_S, count_lines
from tests.support.small_shards import add_manifest, write_tar

SETTINGS = ("eval.pruners=[glimpse,random]", "eval.overlays=1", "eval.costs=false", "data.eval_batch_size=2")


@pytest.fixture(scope="module")
def shards(micro, tmp_path_factory) -> list[str]:
    """The micro run's images with one to three questions each."""
    folder, written, counts = tmp_path_factory.mktemp("lists"), [], []
    for path in micro.shards:
        files: dict[str, bytes] = {}
        counts.append(0)
        for number, record in enumerate(read_records(path, "s")):
            fields = json.loads(record.files["json"])
            asked = [{**fields, "question": f"{fields['question']} {index}"} for index in range(1 + number % 3)]
            files[f"{record.key}.png"] = record.files["png"]
            files[f"{record.key}.json"] = json.dumps(asked if number % 3 else fields).encode()
            counts[-1] += len(asked)
        written.append(write_tar(folder / Path(path).name, files))
    add_manifest(written, counts)
    return written


@pytest.fixture(scope="module")
def alone(micro, shards, tmp_path_factory) -> Path:
    """The evaluation in one process."""
    out = tmp_path_factory.mktemp("alone")
    evaluate(*load_run(micro.ckpt, [*SETTINGS, f"data.root={Path(shards[0]).parent}"]), out)
    return out


def call(micro, shards, out: Path, *more: str) -> list[str]:
    return ["evaluate.py", f"ckpt={micro.ckpt}", f"data.root={Path(shards[0]).parent}", f"out={out}", *SETTINGS, *more]


def check_same(out: Path, alone: Path, shards: list[str]) -> None:
    assert (out / "summary.json").read_text() == (alone / "summary.json").read_text()
    two = results_in(out)
    for name, results in results_in(alone).items():
        parts = [two[name.replace(".jsonl", f".rank{rank}of2.jsonl")] for rank in range(2)]
        assert all(parts) and sorted(parts[0] + parts[1], key=lambda result: result["id"]) == results
        assert len(results) == count_samples(shards) > 12 and any(result["id"].endswith(".2") for result in results)


def test_lightnings_processes(micro, shards, alone, tmp_path):
    printed = commands.run(*call(micro, shards, tmp_path, "trainer.devices=2", "trainer.accelerator=cpu"))
    check_same(tmp_path, alone, shards)
    assert printed.count("split test") == printed.count("report.html") == 1  # one of them prints
    evaluate(*load_run(micro.ckpt, [*SETTINGS, f"data.root={Path(shards[0]).parent}"]), tmp_path)  # nothing is left
    check_same(tmp_path, alone, shards)
    assert not (tmp_path / "samples/test-random-own.jsonl").exists()


def test_processes_of_torchrun(micro, shards, alone, tmp_path):
    """The config says one device: what was started counts."""
    commands.torchrun(*call(micro, shards, tmp_path, "trainer.devices=1"))
    check_same(tmp_path, alone, shards)


@pytest.mark.slow  # the launchers' tests of the data and of training run on SLURM's variables, too
def test_tasks_of_slurm(micro, shards, alone, tmp_path):
    commands.srun(*call(micro, shards, tmp_path))
    check_same(tmp_path, alone, shards)


@pytest.mark.parametrize("killed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_and_gone_on_with(micro, shards, alone, tmp_path, killed):
    """SIGKILL of one of two processes ends both; the same command goes on, or another number of processes."""
    arguments = call(micro, shards, tmp_path, "data.num_workers=0", "data.eval_batch_size=1", "trainer.devices=2")
    first = commands.begin(*arguments)
    pids = kill_rank(first, killed, lambda: list((tmp_path / "samples").glob(f"*.rank{killed}of2.jsonl")))
    first.communicate(timeout=PATIENCE_S)
    assert first.returncode != 0 and not (tmp_path / "summary.json").exists()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))
    before = count_lines(list((tmp_path / "samples").glob("*.jsonl")))
    assert 0 < before < 3 * count_samples(shards)
    if killed:
        commands.run(*arguments)
    else:
        overrides = [text for text in arguments if text.startswith(("eval.", "data."))]
        evaluate(*load_run(micro.ckpt, overrides), tmp_path)
    assert summary_in(tmp_path) == summary_in(alone)
    assert count_lines(list((tmp_path / "samples").glob("*.jsonl"))) == 3 * count_samples(shards)


def kill_rank(process, rank: int, logs) -> list[int]:
    """Kills one of two processes once it has written a line; returns both ids."""
    wait_until(lambda: count_lines(logs()) > 0 or process.poll() is not None, pause_s=0.002)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    pids = [process.pid, *map(int, children)]
    assert len(pids) == 2
    os.kill(pids[rank], signal.SIGKILL)
    return pids


def is_alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(holds, pause_s: float = 0.05) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < limit
        time.sleep(pause_s)
