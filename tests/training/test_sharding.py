"""The frozen base in shards over two processes: gradients, losses and validation of one; runs that go on exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gp.eval import evaluate, find_run, load_run
from gp.training.in_step import InStep
from tests.support import ddp_script
from tests.support.bases import BASES
from tests.support.micro_run import write_config
from tests.support.train_command import finish, start

ROOT = Path(__file__).resolve().parents[2]
STOPPED = """
import os, signal
from gp.training.module import GlimpseModule
stock = GlimpseModule.training_step

def step(self, batch, batch_idx):
    if self.trainer.global_step == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return stock(self, batch, batch_idx)

GlimpseModule.training_step = step
"""
SHARDED = ("trainer.strategy=fsdp2", "eval.after_training=false")


def python(*arguments: str) -> str:
    """Runs a script from the repository's root, on one thread a process; returns what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-20000:]  # of both processes
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("family", BASES)
def test_two_processes_equal_one(tmp_path, family):
    """One process has four questions to validate and the other has one, of which it makes four rounds."""
    base = BASES[family](tmp_path / family)
    ddp_script.main(tmp_path / "one", 1, base)
    python("-m", "tests.support.ddp_script", str(tmp_path / "two"), "2", *SHARDED, base)
    for parts in (1, 2):
        one, two = (
            torch.load(tmp_path / name / family / f"processes{count}x{parts}.pt")
            for name, count in (("one", 1), ("two", 2))
        )
        for name, expected in one["gradients"].items():
            assert float((two["gradients"][name] - expected).abs().max() / expected.abs().max()) < 1e-5, name
        two["losses"].pop("perf/step_s", None)
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
        assert two["figures"] == pytest.approx(one["figures"], rel=1e-5)


@pytest.mark.slow
def test_a_run_goes_on_exactly_and_its_checkpoint_holds_the_trained_parts_alone(tmp_path):
    base = BASES["qwen2_5_vl"](tmp_path / "base")
    write_config(tmp_path, base)
    train = ("train.py", "--config", str(tmp_path / "micro.yaml"), "trainer.devices=2", *SHARDED)
    python(*train, "name=whole")
    status, _, err = finish(start(tmp_path, "trainer.devices=2", *SHARDED, "name=parts", patch=STOPPED))
    assert status == 143 and "ckpt=last" in err, err
    python(*train, "name=parts", "ckpt=last")
    whole, parts = (torch.load(tmp_path / f"runs/{name}/last.ckpt", weights_only=True) for name in ("whole", "parts"))
    assert whole["global_step"] == parts["global_step"] == 4
    assert all(name.startswith("model.glimpse.") for name in whole["state_dict"])
    assert json.loads((tmp_path / "runs/whole/run.json").read_text())["step"] == 4
    weights = [checkpoint["state_dict"] for checkpoint in (whole, parts)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    with pytest.raises(ValueError, match=r"fsdp2 is for training.*trainer\.strategy=auto"):
        find_run(tmp_path / "runs/whole")
    alone = ("trainer.strategy=auto", "trainer.devices=1", "eval.costs=false", "eval.overlays=0")
    assert evaluate(*load_run(tmp_path / "runs/whole", alone), tmp_path / "alone")


def test_a_process_without_batches_keeps_up_with_the_others():
    answers, repeated = iter([True, True, True, False]), []
    step = InStep(lambda mine: next(answers))
    step.begin("a")
    step.finish(repeated.append)
    assert repeated == ["a", "a"]


def test_a_process_that_never_had_one_is_an_error():
    with pytest.raises(ValueError, match="at least as many as processes"):
        InStep(lambda mine: True).finish(print)
