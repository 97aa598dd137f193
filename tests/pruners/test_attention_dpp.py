"""Attention DPP against the determinants of its kernel, written out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from gp.backbones import backbone_of
from gp.pruners import make_baseline
from gp.pruners.attention_dpp import AttentionDPP
from tests.support.tiny_models import tiny_qwen
from tests.support.views import hand_view, kept

# tokens 0 and 1 look alike and are attended to most, token 2 differs and is attended to half as much
EMBEDS = [[1.0, 0.0, 0.0], [1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]
SHARES = [(0.4, 0.2), (0.3, 0.2), (0.1, 0.2), (0.02, 0.02), (0.03, 0.01)]  # of two heads


def view(**options):
    return hand_view(EMBEDS, stage=1, attention={1: torch.tensor(SHARES).log()}, **options)


def kernel() -> np.ndarray:
    relevance = np.mean(SHARES, axis=1) / np.mean(SHARES, axis=1).max()
    unit = np.array(EMBEDS) / np.linalg.norm(EMBEDS, axis=1, keepdims=True)
    return relevance[:, None] * (unit @ unit.T) * relevance


def test_each_pick_adds_most_to_the_determinant():
    scores = AttentionDPP(1).scores(view(ratio=0.6))
    chosen: list[int] = []
    for _ in range(3):
        rest = [token for token in range(5) if token not in chosen]
        chosen.append(max(rest, key=lambda token: np.linalg.det(kernel()[np.ix_([*chosen, token], [*chosen, token])])))
    assert scores.argsort(descending=True)[:3].tolist() == chosen


def test_it_prefers_another_sight_to_the_same_again():
    assert kept(AttentionDPP(1), view(ratio=0.4)) == [0, 2]  # attention alone would keep 0 and 1
    pairs = {pair: np.linalg.det(kernel()[np.ix_(pair, pair)]) for pair in itertools.combinations(range(5), 2)}
    assert max(pairs, key=pairs.get) == (0, 2)


def test_relevance_is_scaled_in_each_group_of_its_own():
    scores = AttentionDPP(1).scores(view(ratio=0.5, grids=[(1, 2), (1, 3)], scope="image"))
    assert scores.tolist() == [1.0, 0.0, 1.0, 0.0, 0.0]  # int(0.5 * 2) and int(0.5 * 3) picks
    faint = {1: torch.tensor(SHARES).log() - 5}
    assert AttentionDPP(1).scores(hand_view(EMBEDS, stage=1, attention=faint, ratio=0.6)).tolist() == pytest.approx(
        AttentionDPP(1).scores(view(ratio=0.6)).tolist()
    )
    assert math.isclose(float(scores.sum()), 2)


def test_it_prunes_where_glimpse_does_or_in_the_middle():
    backbone = backbone_of(tiny_qwen(layers=8))
    assert make_baseline("attention_dpp", backbone, 5).stages == (5,)
    assert make_baseline("attention_dpp", backbone).stages == (3,)
    chosen = make_baseline("attention_dpp", backbone, 5, {"layer": 2})
    assert chosen.stages == chosen.read_layers == (2,)
