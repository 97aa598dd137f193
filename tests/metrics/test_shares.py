"""Means of shares: against fractions, and in any order."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
import torch

from gp.metrics import MeanShares


def test_against_fractions():
    rng = random.Random(0)
    pairs = [(rng.randint(0, 30), 30 + rng.randint(0, 9)) for _ in range(101)]
    metric = MeanShares(("share", "all"))
    for start in range(0, 101, 7):
        metric.update(torch.tensor([[a / b, 1.0] for a, b in pairs[start : start + 7]], dtype=torch.double))
    mean = sum(Fraction(a, b) for a, b in pairs) / 101
    assert abs(Fraction(float(metric.compute()["share"])) - mean) < Fraction(1, 2**40)
    assert float(metric.compute()["all"]) == 1


def test_no_order_changes_a_bit():
    """Sums of floats of these values differ with the order."""
    values = torch.rand(1000, 1, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    assert values.sum() != values.flip(0).cumsum(0)[-1]
    means = []
    for order in (values, values.flip(0), values.sort(0).values):
        metric = MeanShares(("share",))
        for chunk in order.split(9):
            metric.update(chunk)
        means.append(float(metric.compute()["share"]))
    assert len(set(means)) == 1


def test_before_the_first_sample():
    metric = MeanShares(("a", "b"))
    metric.update(torch.zeros(0, 2))
    assert metric.compute() == {"a": 0, "b": 0}


@pytest.mark.parametrize(
    ("shares", "message"), [([0.5], "expected .n, 2., got .1."), ([[0.5, 1.1]], "0..1, got"), ([[-0.1, 1.0]], "0..1")]
)
def test_other_values_are_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        MeanShares(("a", "b")).update(torch.tensor(shares))
