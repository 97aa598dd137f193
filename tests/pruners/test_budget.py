"""Budgets in tokens."""

from __future__ import annotations

import pytest

from gp.pruners.budget import bisect, mean_tokens, tokens_after
from gp.types import PruneOptions


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (PruneOptions(fixed_keep_ratio=0.25), [10.0, 2.0]),
        (PruneOptions(max_keep_ratio=0.5), [20.0, 4.0]),
        (PruneOptions(num_keep=(7, 8), min_kept=0), [7.0, 8.0]),
    ],
)
def test_means_of_two_groups_of_40_and_8(options, expected):
    assert mean_tokens([40, 8], options) == expected


def test_a_share_that_is_whole_but_for_rounding_is_whole():
    assert 0.29 * 100 < 29 and tokens_after(0.29, 100) == 29
    assert tokens_after(0.299, 100) == 29


def test_bisection_finds_the_root():
    assert bisect(lambda x: x**3, 2.0, 0.0, 2.0) == pytest.approx(2 ** (1 / 3), abs=1e-12)
