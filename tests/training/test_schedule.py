"""Warm-up and cosine."""

from __future__ import annotations

import math

import pytest
import torch

from gp.config import OptimConfig
from gp.config.schema import DataConfig, TrainConfig, TrainerConfig
from gp.training.schedule import lr_factor, num_steps, warmup_cosine


def test_warm_up_rises_in_equal_steps_to_one():
    assert [lr_factor(step, 100, 10) for step in (0, 4, 9)] == [0.1, 0.5, 1.0]


def test_cosine_falls_from_one_to_the_floor():
    assert lr_factor(10, 100, 10, 0.2) == 1.0
    assert lr_factor(55, 100, 10, 0.2) == pytest.approx(0.2 + 0.8 * 0.5)
    assert lr_factor(100, 100, 10, 0.2) == lr_factor(500, 100, 10, 0.2) == pytest.approx(0.2)
    factors = [lr_factor(step, 100, 10) for step in range(10, 100)]
    assert factors == sorted(factors, reverse=True) and factors[-1] > 0


@pytest.mark.parametrize(("max_steps", "warmup"), [(1, 0), (1, 1), (5, 0), (3, 3)])
def test_short_runs_take_no_step_at_rate_zero(max_steps, warmup):
    assert all(lr_factor(step, max_steps, warmup) > 0 for step in range(max_steps))


def test_agrees_with_torch_cosine_without_warm_up():
    """An independent implementation: torch's own scheduler."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.5)
    for step in range(20):
        assert math.isclose(optimizer.param_groups[0]["lr"], 2.0 * lr_factor(step, 20, 0, 0.25), rel_tol=1e-9)
        optimizer.step()
        theirs.step()


def test_groups_keep_their_proportion():
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (8e-3, 1e-3)]
    optimizer = torch.optim.AdamW(groups)
    scheduler = warmup_cosine(optimizer, OptimConfig(lr=1e-3, warmup_fraction=0.1), max_steps=20)
    for _ in range(20):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == pytest.approx(8 * second)
        optimizer.step()
        scheduler.step()


def config(accumulate: int = 4, **optim) -> TrainConfig:
    trainer = TrainerConfig(accumulate_grad_batches=accumulate)
    return TrainConfig(data=DataConfig(train=["a.tar"], batch_size=2), trainer=trainer, optim=OptimConfig(**optim))


@pytest.mark.parametrize(
    ("epochs", "world", "samples", "steps"), [(1, 1, 80, 10), (1, 1, 87, 10), (2.5, 3, 96, 10), (0.1, 1, 240, 3)]
)
def test_steps_of_epochs(epochs, world, samples, steps):
    assert num_steps(config(epochs=epochs), world, samples) == steps


def test_steps_as_given():
    assert num_steps(config(max_steps=7), 8, None) == 7


def test_epochs_of_unknown_or_too_little_data():
    with pytest.raises(
        ValueError, match=r"optim\.epochs=1 needs the number of samples .*a\.tar.*optim\.max_steps.*manifest"
    ):
        num_steps(config(epochs=1), 1, None)
    with pytest.raises(ValueError, match=r"optim\.epochs=0\.01 of 100 samples is less than one step of 8 samples"):
        num_steps(config(epochs=0.01), 1, 100)
