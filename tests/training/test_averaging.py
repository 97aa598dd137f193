"""`optim.ema`, through the command: what is averaged, who gets the averages, and that training does not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

import gp
import train
from gp.eval import load_run
from gp.training.module import GlimpseModule
from tests.support.micro_run import save_base, write_config
from tests.support.train_command import finish, start

pytestmark = pytest.mark.core

DECAY = 0.6
STEPS = ("trainer.val_every=2", "trainer.save_every=50", "trainer.val_samples=2", "eval.after_training=false")

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def micro(tmp_path, base) -> Path:
    write_config(tmp_path, base)
    return tmp_path


@pytest.fixture
def seen(monkeypatch) -> dict[str, list[State]]:
    """Weights after each optimizer step, and those of each validation but the rehearsed one."""
    seen: dict[str, list[State]] = {"trained": [], "validated": []}

    def on_train_batch_end(module, outputs, batch, batch_idx) -> None:
        seen["trained"].append(state_of(module))

    def validation_step(module, batch, batch_idx):
        if not module.trainer.sanity_checking:
            seen["validated"].append(state_of(module))
        return validate(module, batch, batch_idx)

    validate = GlimpseModule.validation_step
    monkeypatch.setattr(GlimpseModule, "on_train_batch_end", on_train_batch_end)
    monkeypatch.setattr(GlimpseModule, "validation_step", validation_step)
    return seen


def state_of(module: torch.nn.Module) -> State:
    return {name: value.clone() for name, value in module.model.glimpse.state_dict().items()}


def call(folder: Path, *overrides: str) -> int:
    return train.main(["--config", str(folder / "micro.yaml"), *STEPS, *overrides])


def saved(folder: Path, name: str = "micro") -> dict:
    return torch.load(folder / f"runs/{name}/last.ckpt", weights_only=True)


def without_prefix(state: State) -> State:
    return {name.removeprefix("model.glimpse."): value for name, value in state.items()}


def averages(states: list[State]) -> list[State]:
    """After each step, by the definition: the first is the weights themselves."""
    means = [states[0]]
    for state in states[1:]:
        means.append({name: DECAY * means[-1][name] + (1 - DECAY) * value for name, value in state.items()})
    return means


def assert_same(one: State, other: State) -> None:
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_who_gets_the_averages(micro, base, seen):
    assert call(micro, f"optim.ema={DECAY}") == 0
    states, validated = seen["trained"], seen["validated"]
    means = averages(states)
    assert not torch.equal(states[3]["vip.feature_in.weight"], means[3]["vip.feature_in.weight"])
    assert_same(without_prefix(saved(micro)["state_dict"]), means[3])
    assert_same(validated[0], means[1])
    assert_same(validated[-1], means[3])
    assert_same(gp.from_pretrained(base, glimpse=micro / "runs/micro/glimpse").glimpse.state_dict(), means[3])
    assert_same(load_run(micro / "runs/micro")[0].glimpse.state_dict(), means[3])


def test_training_goes_on_with_the_weights_themselves(micro, seen):
    assert call(micro, "name=plain") == 0
    plain = list(seen["trained"])
    seen["trained"].clear()
    assert call(micro, f"optim.ema={DECAY}") == 0
    for one, other in zip(plain, seen["trained"], strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_resuming_is_exact(micro, monkeypatch):
    assert call(micro, f"optim.ema={DECAY}", "name=whole") == 0

    def stop_at_2(module, outputs, batch, batch_idx) -> None:
        if module.trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(GlimpseModule, "on_train_batch_end", stop_at_2)
    for status in (143, 0):
        assert call(micro, f"optim.ema={DECAY}", "ckpt=auto", "trainer.val_every=50") == status
    whole, parts = saved(micro, "whole"), saved(micro)
    for key in ("state_dict", "current_model_state"):
        assert whole[key].keys() == parts[key].keys()
        assert all(torch.equal(whole[key][name], parts[key][name]) for name in whole[key])


def test_a_finished_run_can_go_on(micro, seen):
    assert call(micro, f"optim.ema={DECAY}") == 0
    assert call(micro, f"optim.ema={DECAY}", "ckpt=last", "optim.max_steps=6") == 0
    assert_same(without_prefix(saved(micro)["state_dict"]), averages(seen["trained"])[5])


def test_a_run_that_goes_on_keeps_its_decay(micro, capsys):
    assert call(micro, f"optim.ema={DECAY}") == 0
    assert call(micro, "ckpt=last", "optim.max_steps=6") == 2
    assert f"optim.ema {DECAY} there, None here" in capsys.readouterr().err


def test_without_it_a_checkpoint_has_no_averages(micro):
    assert call(micro) == 0
    assert "current_model_state" not in saved(micro)


WRITE_STATES = """
import os, torch
from gp.training.module import GlimpseModule
states = []
def after_step(self, outputs, batch, batch_idx):
    states.append({{name: value.clone() for name, value in self.model.glimpse.state_dict().items()}})
    torch.save(states, {folder!r} + "/states" + os.environ["LOCAL_RANK"] + ".pt")
GlimpseModule.on_train_batch_end = after_step
"""


@pytest.mark.slow
def test_on_two_processes(micro):
    """Both have the same weights after each step, and what is saved and exported is their average."""
    patch = WRITE_STATES.format(folder=str(micro))
    process = start(micro, *STEPS, f"optim.ema={DECAY}", "optim.max_steps=3", "trainer.devices=2", patch=patch)
    status, out, err = finish(process)
    assert status == 0, out + err
    first, second = (torch.load(micro / f"states{rank}.pt", weights_only=True) for rank in range(2))
    for one, other in zip(first, second, strict=True):
        assert_same(one, other)
    assert_same(without_prefix(saved(micro)["state_dict"]), averages(first)[-1])
