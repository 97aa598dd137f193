"""The bound of a calibrated threshold, against its definition, and the choice by it."""

from __future__ import annotations

from math import comb

import pytest

from gp.eval.calibration import Tried, choose, fewest_questions, lower_bound, most_that_may_differ


@pytest.mark.parametrize(
    ("agreed", "total", "confidence"), [(511, 512, 0.95), (30, 40, 0.9), (1, 7, 0.99), (90, 100, 0.5)]
)
def test_at_the_bound_so_many_would_be_as_rare_as_stated(agreed, total, confidence):
    p = lower_bound(agreed, total, confidence)
    tail = sum(comb(total, k) * p**k * (1 - p) ** (total - k) for k in range(agreed, total + 1))
    assert tail == pytest.approx(1 - confidence, rel=1e-6)


def test_ends_have_their_closed_forms():
    assert lower_bound(0, 10, 0.95) == 0
    assert lower_bound(300, 300, 0.95) == pytest.approx(0.05 ** (1 / 300), rel=1e-9)


def test_the_bound_holds_as_often_as_it_says():
    """Of all outcomes at a true share, those whose bound is above it are rarer than 1 - confidence."""
    total, share = 60, 0.9
    wrong = [k for k in range(total + 1) if lower_bound(k, total, 0.95) > share]
    assert 0 < sum(comb(total, k) * share**k * (1 - share) ** (total - k) for k in wrong) <= 0.05


def test_how_many_may_differ():
    assert most_that_may_differ(512, 0.99, 0.95) == 1
    assert most_that_may_differ(299, 0.99, 0.95) == 0 and most_that_may_differ(298, 0.99, 0.95) == -1


@pytest.mark.parametrize(("target", "confidence", "fewest"), [(0.99, 0.95, 299), (0.9, 0.95, 29), (0.995, 0.99, 919)])
def test_the_fewest_questions_are_those_with_which_none_may_differ(target, confidence, fewest):
    assert fewest_questions(target, confidence) == fewest
    assert most_that_may_differ(fewest, target, confidence) == 0
    assert most_that_may_differ(fewest - 1, target, confidence) == -1


def tried(threshold: float, bound: float) -> Tried:
    return Tried(threshold, 1, 1, bound, 0.5)


@pytest.mark.parametrize(
    ("bounds", "chosen"),
    [((0.995, 0.993, 0.98, 0.97), 0.2), ((0.995, 0.98, 0.999, 0.97), 0.1), ((0.98, 0.999), None), ((0.99,), 0.1)],
)
def test_the_first_miss_ends_the_search(bounds, chosen):
    every = [tried((index + 1) / 10, bound) for index, bound in enumerate(bounds)]
    found = choose(every[::-1], 0.99)
    assert (found and found.threshold) == chosen
