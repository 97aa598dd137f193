"""Ways that take turns, and the share of a bound that they reach."""

from __future__ import annotations

import pytest

from gp.bench.rounds import in_turn, share_of_bound


def test_share_of_a_bound():
    assert share_of_bound(2.0, 2.0) == 1.0 and share_of_bound(4 / 3, 2.0) == pytest.approx(0.5)
    assert share_of_bound(0.5, 2.0) == -2.0 and share_of_bound(2.0, 1.01) is None


def test_ways_take_turns_and_the_first_round_does_not_count():
    calls = []

    def way(name):
        return lambda: calls.append(name) or len(calls)

    figures = in_turn({"a": way("a"), "b": way("b")}, repeats=2, what="test")
    assert "".join(calls) == "ababab"
    assert figures == {"a": [3, 5], "b": [4, 6]}
