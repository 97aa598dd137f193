"""DivPrune against a full distance matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gp.pruners import divprune
from gp.pruners.divprune import DivPrune, distance_to_nearest, most_diverse
from tests.support.views import hand_view, kept


def at_angles(*degrees: float) -> list[list[float]]:
    """Vectors of different lengths in the plane: only their directions may count."""
    return [[(1 + i) * math.cos(math.radians(d)), (1 + i) * math.sin(math.radians(d))] for i, d in enumerate(degrees)]


def brute_force(embeds: np.ndarray, count: int) -> list[int]:
    """Picks with all N x N distances at hand, in float64."""
    unit = embeds / np.linalg.norm(embeds, axis=1, keepdims=True)
    distance = 1 - unit @ unit.T
    others = distance + np.diag([np.inf] * len(unit))
    picks = [int(others.min(0).argmax())]
    while len(picks) < count:
        nearest = distance[picks].min(0)
        nearest[picks] = -np.inf
        picks.append(int(nearest.argmax()))
    return picks


def test_a_case_by_hand():
    tokens = at_angles(0, 10, 30, 120, 250)
    # nearest neighbours are 10, 10, 20, 90 and 110 degrees away: 250 first; farthest from it is 30 (140 degrees);
    # then the nearest picks are 30 (for 0), 20 (for 10) and 90 (for 120) degrees away: 120
    assert most_diverse(torch.tensor(tokens), 3).tolist() == [4, 2, 3]
    assert kept(DivPrune(), hand_view(tokens, ratio=0.6)) == [2, 3, 4]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 5, 24])
def test_equals_brute_force(seed, count):
    embeds = np.random.default_rng(seed).normal(size=(24, 6))
    picks = most_diverse(torch.tensor(embeds, dtype=torch.float32), count).tolist()
    assert picks == brute_force(embeds, count) and len(set(picks)) == count


def test_distances_in_chunks_equal_those_at_once(monkeypatch):
    unit = torch.nn.functional.normalize(torch.randn(19, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    distance = 1 - (unit @ unit.T).numpy() + np.diag([np.inf] * 19)
    for entries in (1, 19 * 4, 1 << 20):
        monkeypatch.setattr(divprune, "MAX_ENTRIES", entries)
        np.testing.assert_allclose(distance_to_nearest(unit), distance.min(1), atol=1e-6)


def test_copies_of_a_token_are_not_picked_twice():
    picks = most_diverse(torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]]), 4).tolist()
    assert sorted(picks) == [0, 1, 2, 3] and picks[0] == 3


def test_images_with_budgets_of_their_own_do_not_see_each_other():
    tokens = at_angles(0, 10, 180, 0, 40, 300)
    apart = kept(DivPrune(), hand_view(tokens, [(1, 3), (1, 3)], ratio=0.67, scope="image"))
    alone = [kept(DivPrune(), hand_view(part, ratio=0.67)) for part in (tokens[:3], tokens[3:])]
    assert apart == alone[0] + [3 + j for j in alone[1]]
    assert len(kept(DivPrune(), hand_view(tokens, [(1, 3), (1, 3)], ratio=0.67))) == 4


def test_one_token_and_none():
    assert most_diverse(torch.ones(1, 3), 1).tolist() == [0]
    assert most_diverse(torch.ones(4, 3), 0).tolist() == []
