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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_past_the_rank_of_the_kernel_picks_are_still_different(rank, dtype):
    torch.manual_seed(rank)
    basis = torch.randn(rank, 16, dtype=dtype)
    unit = torch.nn.functional.normalize(torch.randn(60, rank, dtype=dtype) @ basis, dim=-1)
    relevance = torch.rand(60, dtype=dtype) + 0.05
    picks = greedy_map(unit, relevance, 60).tolist()
    assert sorted(picks) == list(range(60))
    assert torch.linalg.matrix_rank(unit[picks[:rank]].double()) == rank  # first those that say something new
    rest = relevance[picks[rank:]]
    assert torch.equal(rest, rest.sort(descending=True).values)


def test_no_picks_and_more_picks_than_tokens():
    unit, relevance = torch.eye(3), torch.tensor([1.0, 3.0, 2.0])
    assert greedy_map(unit, relevance, 0).shape == (0,)
    assert greedy_map(unit, relevance, 7).tolist() == [1, 2, 0]
