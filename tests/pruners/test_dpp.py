"""Greedy MAP of a DPP against determinants computed outright."""

from __future__ import annotations

import pytest
import torch

from gp.pruners.dpp import greedy_map


@pytest.mark.parametrize("seed", range(5))
def test_every_pick_is_the_one_with_the_greatest_determinant(seed):
    torch.manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(9, 6, dtype=torch.float64), dim=-1)
    relevance = torch.rand(9, dtype=torch.float64) + 0.1
    kernel = relevance[:, None] * (unit @ unit.T) * relevance
    picks: list[int] = []
    for _ in range(5):
        left = [token for token in range(9) if token not in picks]
        picks.append(max(left, key=lambda token: torch.det(kernel[[*picks, token]][:, [*picks, token]]).item()))
    assert greedy_map(unit, relevance, 5).tolist() == picks


def test_no_picks_and_more_picks_than_tokens():
    unit, relevance = torch.eye(3), torch.tensor([1.0, 3.0, 2.0])
    assert greedy_map(unit, relevance, 0).shape == (0,)
    assert greedy_map(unit, relevance, 7).tolist() == [1, 2, 0]
