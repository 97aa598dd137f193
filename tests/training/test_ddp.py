"""Two processes, and several micro-batches, do what one does: gradients, losses, validation, and a whole run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gp.eval import evaluate, load_run
from tests.support import ddp_script
from tests.support.bases import BASES
from tests.support.micro_run import write_config

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str) -> str:
    """Runs a script from the repository's root, on one thread a process; returns what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-20000:]  # of both processes
    return done.stdout


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Of every family."""
    folder = tmp_path_factory.mktemp("bases")
    return {family: save(folder / family) for family, save in BASES.items()}


@pytest.fixture(scope="module")
def base(bases):
    return bases["qwen2_5_vl"]


@pytest.fixture(scope="module")
def found(tmp_path_factory, bases):
    """What `ddp_script` found with one process and with two: a folder each."""
    folder = tmp_path_factory.mktemp("ddp")
    ddp_script.main(folder / "one", 1, *bases.values())
    python("-m", "tests.support.ddp_script", str(folder / "two"), "2", *bases.values())
    return folder


@pytest.fixture(scope="module", params=BASES)
def one_and_two(found, request):
    """Of one family, with one process and with two."""
    return [
        torch.load(found / name / request.param / f"processes{count}x1.pt") for count, name in ((1, "one"), (2, "two"))
    ]


def test_gradients_equal_those_of_one_process(one_and_two):
    one, two = (found["gradients"] for found in one_and_two)
    assert one.keys() == two.keys()
    for name, expected in one.items():
        assert float(expected.abs().max()) > 0
        assert float((two[name] - expected).abs().max() / expected.abs().max()) < 1e-5, name


@pytest.mark.parametrize("processes, name", [(1, "one"), (2, "two")])
def test_micro_batches_equal_one_batch(found, processes, name):
    """One image and one token, then four and many: each counts as it does in the whole batch."""
    one = torch.load(found / "one" / "qwen2_5_vl" / "processes1x1.pt")
    parts = torch.load(found / name / "qwen2_5_vl" / f"processes{processes}x2.pt")
    assert parts["losses"] == pytest.approx(one["losses"], rel=1e-5)
    for key, expected in one["gradients"].items():
        assert float((parts["gradients"][key] - expected).abs().max() / expected.abs().max()) < 1e-5, key


def test_logged_losses_are_those_of_the_global_batch(one_and_two):
    one, two = (found["losses"] for found in one_and_two)
    assert two.pop("perf/step_s", None) is None
    assert two == pytest.approx(one, rel=1e-5)


def test_validation_figures_are_identical(one_and_two):
    one, two = (found["figures"] for found in one_and_two)
    assert two == pytest.approx(one, rel=1e-6)


def test_a_whole_run_on_two_processes(tmp_path, base):
    """Each process reads its own shards, the first one alone prints; both evaluate, and count as one would."""
    write_config(tmp_path, base)
    settings = ("eval.costs=false", "eval.overlays=0", "data.eval_batch_size=1")
    out = python("train.py", "--config", str(tmp_path / "micro.yaml"), "trainer.devices=2", *settings)
    assert out.count("train step 4/4") == 1 and "2 x cpu" in out
    info = json.loads((tmp_path / "runs/micro/run.json").read_text())
    assert info["step"] == 4
    checkpoint = torch.load(tmp_path / "runs/micro/last.ckpt", weights_only=True)
    assert checkpoint["GlimpseDataModule"]["world"] == 2
    samples, summary = tmp_path / "runs/micro/eval/samples", tmp_path / "runs/micro/eval/summary.json"
    of_ranks = [(samples / f"test-glimpse-own.rank{rank}of2.jsonl").read_text().splitlines() for rank in range(2)]
    assert sorted(map(len, of_ranks)) == [2, 3]
    config = ("trainer.devices=1", *settings)
    evaluate(*load_run(tmp_path / "runs/micro", config), tmp_path / "alone")
    assert json.loads(summary.read_text()) == json.loads((tmp_path / "alone/summary.json").read_text())
