"""Warm-up and cosine."""

from __future__ import annotations

import math

import pytest
import torch

from gp.config import OptimConfig
from gp.training.schedule import lr_factor, warmup_cosine


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
