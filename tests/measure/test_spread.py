"""Median and quartiles by hand."""

from __future__ import annotations

from gp.measure.spread import Spread, ratio


def test_quartiles_lie_between_neighbours():
    assert Spread.from_values([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(median=3.0, low=2.0, high=4.0)
    assert Spread.from_values([1.0, 2.0]) == Spread(median=1.5, low=1.25, high=1.75)
    assert Spread.from_values([2.0]) == Spread(2.0, 2.0, 2.0)


def test_ratios_are_taken_pair_by_pair():
    assert ratio([4.0, 9.0, 2.0], [2.0, 3.0, 2.0]) == Spread(median=2.0, low=1.5, high=2.5)
