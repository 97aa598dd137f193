"""Budgets in tokens."""

from __future__ import annotations

import pytest

from gp.pruners.budget import bisect, mean_tokens
from gp.selection import groups_of
from gp.types import PruneOptions, VisualLayout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (PruneOptions(fixed_keep_ratio=0.25), [10.0, 2.0]),
        (PruneOptions(max_keep_ratio=0.5), [20.0, 4.0]),
        (PruneOptions(num_keep=(7, 8), min_kept=0), [7.0, 8.0]),
        (PruneOptions(num_keep=9), [9.0, 8.0]),
        ([PruneOptions(num_keep=9), PruneOptions(max_keep_ratio=0.5)], [9.0, 4.0]),
    ],
    ids=str,
)
def test_means_of_two_prompts_of_40_and_8(options, expected):
    layout = VisualLayout(((5, 8), (1, 8)), (0, 1), 2)
    assert [mean_tokens(group) for group in groups_of(layout, options)] == expected


def test_bisection_finds_the_root():
    assert bisect(lambda x: x**3, 2.0, 0.0, 2.0) == pytest.approx(2 ** (1 / 3), abs=1e-12)
