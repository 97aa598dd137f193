"""Losses, gradients and weights that are not finite: through the command, and each kind alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import train as script
from gp.training.callbacks.finite import FiniteNumbers, gradient_norm, refuse_bad_weights
from gp.training.module import GlimpseModule
from tests.support.micro_run import save_base, write_config

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ("eval.after_training=false", "trainer.save_every=1", "optim.warmup_fraction=0")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def spoil(monkeypatch):
    """Makes the loss of some micro-batches, numbered from 0 over the run, not a number."""
    stock = GlimpseModule.training_step

    def spoil(*numbers: int) -> None:
        def training_step(self, batch, batch_idx):
            if batch_idx in numbers:
                batch.sent["pixel_values"] = batch.inputs["pixel_values"] * float("nan")
                batch.pixel_table = None
                batch.__dict__.pop("inputs", None)
            return stock(self, batch, batch_idx)

        monkeypatch.setattr(GlimpseModule, "training_step", training_step)

    return spoil


def run(tmp_path, base, *overrides: str) -> int:
    write_config(tmp_path, base)
    return script.main(["--config", str(tmp_path / "micro.yaml"), *OPTIONS, *overrides])


def saved_step(tmp_path) -> int:
    checkpoint = torch.load(tmp_path / "runs/micro/last.ckpt", weights_only=True)
    assert all(bool(value.isfinite().all()) for value in checkpoint["state_dict"].values())
    return checkpoint["global_step"]


def test_a_bad_loss_stops_the_run_and_leaves_the_good_checkpoint(tmp_path, base, spoil, capsys):
    spoil(2)
    assert run(tmp_path, base) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert (
        "optimizer step 3: the loss is nan" in line
        and "0 skipped steps of 0 allowed" in line
        and "trainer.max_bad_steps" in line
    )
    assert saved_step(tmp_path) == 2 and not (tmp_path / "runs/micro/glimpse").exists()


def test_as_many_bad_steps_as_allowed_are_skipped(tmp_path, base, spoil, capsys):
    spoil(1)
    assert run(tmp_path, base, "trainer.max_bad_steps=1") == 0
    assert "step 2 skipped (1 of 1): the loss is nan" in capsys.readouterr().out
    assert saved_step(tmp_path) == 4 and (tmp_path / "runs/micro/glimpse").is_dir()
    checkpoint = torch.load(tmp_path / "runs/micro/last.ckpt", weights_only=True)
    steps = {float(state["step"]) for state in checkpoint["optimizer_states"][0]["state"].values()}
    assert steps == {3.0}  # of AdamW: it was passed over once


def test_one_bad_micro_batch_spoils_its_step_only(tmp_path, base, spoil, capsys):
    spoil(2)
    assert run(tmp_path, base, "trainer.max_bad_steps=1", "trainer.accumulate_grad_batches=2") == 0
    assert "step 2 skipped" in capsys.readouterr().out


def test_weights_that_an_optimizer_step_spoils_are_not_saved(tmp_path, base, capsys):
    """Finite loss and gradient, but the step leads beyond what float16 can hold."""
    assert run(tmp_path, base, "trainer.precision=16-true", "optim.lr=1e6") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "after optimizer step 1" in line and "not finite" in line
    assert [path.name for path in (tmp_path / "runs/micro").glob("*.ckpt*")] == []
    assert not (tmp_path / "runs/micro/glimpse").exists()


def test_the_norm_is_that_of_all_gradients_together():
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]]), torch.full((1,), 300.0, dtype=torch.float16)]
    assert float(gradient_norm(gradients)) == pytest.approx((9 + 16 + 300**2) ** 0.5)


@pytest.mark.parametrize("scale, skipped", [(65536.0, 0), (1.0, 1), (None, 1)])
def test_gradients_that_overflow_only_because_of_the_scale_are_the_scalers_business(scale, skipped):
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([float("inf"), 1.0])
    scaler = None if scale is None else SimpleNamespace(get_scale=lambda: scale)
    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler), global_step=0, is_global_zero=False)
    module = SimpleNamespace(loss_of_step=torch.tensor(0.5), log=lambda *args, **options: None)
    callback = FiniteNumbers(max_bad_steps=1)
    callback.on_before_optimizer_step(trainer, module, torch.optim.SGD([parameter], lr=1.0))
    assert callback.num_bad_steps == skipped and (parameter.grad is None) == bool(skipped)
    resumed = FiniteNumbers(max_bad_steps=1)
    resumed.load_state_dict(callback.state_dict())
    assert resumed.num_bad_steps == skipped


def test_bad_weights_are_named():
    state = {"a": torch.ones(2), "b": torch.tensor([1.0, float("inf")]), "count": torch.tensor(3)}
    with pytest.raises(ValueError, match=r"step 7: b is not finite any more \(1 of 2"):
        refuse_bad_weights(state, 7)


SPOILED = """
import sys
import train
from gp.training.module import GlimpseModule

stock = GlimpseModule.training_step

def training_step(self, batch, batch_idx):
    if self.trainer.global_rank == 1 and batch_idx == 1:
        batch.inputs["pixel_values"] = batch.inputs["pixel_values"] * float("nan")
    return stock(self, batch, batch_idx)

GlimpseModule.training_step = training_step
sys.exit(train.main())
"""


@pytest.mark.slow
def test_processes_skip_the_same_step(tmp_path, base):
    """The second of two processes alone has a bad sample."""
    write_config(tmp_path, base)
    (tmp_path / "spoiled.py").write_text(SPOILED)
    command = [sys.executable, str(tmp_path / "spoiled.py"), "--config", str(tmp_path / "micro.yaml"), *OPTIONS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    options = ["trainer.devices=2", "trainer.max_bad_steps=1", "trainer.val_every=9"]
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("step 2 skipped (1 of 1): the loss is nan") == 1
    assert saved_step(tmp_path) == 4
