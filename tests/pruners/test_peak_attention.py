"""Peak attention against numbers worked out here."""

from __future__ import annotations

import math

import pytest
import torch

from gp.backbones import backbone_of
from gp.pruners import make_baseline
from gp.pruners.peak_attention import PeakAttention
from tests.pruners.views import hand_view, kept
from tests.tiny_models import tiny_qwen

# logits of 5 visual tokens: layer 0 with 2 heads, layer 1 with 2 heads
LOGITS = {
    0: [(1.0, 0.0), (1.0, 0.0), (1.0, 3.0), (1.0, 0.0), (1.0, 0.0)],
    1: [(0.0, 9.0), (0.0, 9.0), (0.0, 8.0), (2.0, 9.0), (0.0, 9.5)],
}
ONES = [[1.0]] * 5


def peaks(tokens) -> list[float]:
    """The highest share that any head of any layer gives each of the tokens, among these tokens."""
    best = dict.fromkeys(tokens, 0.0)
    for layer in LOGITS.values():
        for head in range(2):
            total = sum(math.exp(layer[j][head]) for j in tokens)
            best = {j: max(best[j], math.exp(layer[j][head]) / total) for j in tokens}
    return list(best.values())


def view(**options):
    attention = {layer: torch.tensor(rows) for layer, rows in LOGITS.items()}
    return hand_view(ONES, stage=1, attention=attention, **options)


def test_the_strongest_head_of_any_layer_decides():
    assert PeakAttention(1).scores(view()).tolist() == pytest.approx(peaks(range(5)), rel=1e-5)
    # head 2 of layer 0 picks token 2, head 1 of layer 1 token 3; the mean over heads would prefer token 4
    assert kept(PeakAttention(1), view(ratio=0.4)) == [2, 3]


def test_each_image_is_normalised_on_its_own_if_it_has_its_own_budget():
    scores = PeakAttention(1).scores(view(grids=[(1, 2), (1, 3)], scope="image"))
    assert scores.tolist() == pytest.approx(peaks([0, 1]) + peaks([2, 3, 4]), rel=1e-5)


def test_it_prunes_where_glimpse_does_or_in_the_middle():
    backbone = backbone_of(tiny_qwen(layers=8))
    assert make_baseline("peak_attention", backbone, 5).stages == (5,)
    assert make_baseline("peak_attention", backbone).stages == (3,)
    chosen = make_baseline("peak_attention", backbone, 5, {"layer": 2})
    assert chosen.stages == (2,) and chosen.read_layers == (0, 1, 2)
