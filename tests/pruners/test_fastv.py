"""FastV against numbers worked out here, and against the weights of transformers' eager attention."""

from __future__ import annotations

import math

import pytest
import torch

from gp.model import GlimpseModel
from gp.pruners.fastv import FastV
from gp.types import PruneOptions
from tests.support.tiny_models import FAMILIES
from tests.support.views import hand_view, kept

# attention of the last position to 6 visual tokens, 2 heads each; what is missing to 1 goes to text
WEIGHTS = [(0.10, 0.02), (0.01, 0.30), (0.05, 0.05), (0.20, 0.00001), (0.11, 0.10), (0.03, 0.04)]
ONES = [[1.0]] * 6


def test_the_highest_mean_over_heads_stays():
    view = hand_view(ONES, stage=1, attention={1: torch.tensor(WEIGHTS).log()})
    means = [(a + b) / 2 for a, b in WEIGHTS]  # 0.06, 0.155, 0.05, 0.1, 0.105, 0.035
    assert FastV().scores(view).tolist() == pytest.approx(means, rel=1e-5)
    # budget 1/2 of 8 layers = 4; 2 are full, so 2 of the other 6: a third of 6 tokens, 2
    assert kept(FastV(), view) == [1, 4]
    assert len(kept(FastV(compact_cache=True), view)) == 3


@pytest.mark.parametrize(
    ("layers", "budget", "after"),
    [(28, 0.111, 0.043), (28, 0.222, 0.162), (28, 0.333, 0.282), (32, 0.111, 0.052), (32, 0.222, 0.17)],
)
def test_shares_of_the_docstring(layers, budget, after):
    (share,) = FastV().shares(budget, layers)
    assert share == pytest.approx(after, abs=5e-4)
    assert (2 + (layers - 2) * share) / layers == pytest.approx(budget)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("layer", [0, 2])
def test_scores_are_the_weights_of_eager_attention(family, layer):
    base = family.make(attn_implementation="eager")
    inputs = family.inputs(family.fit([([(3, 4)], 7)]))
    done = GlimpseModel(base).prefill(inputs, FastV(layer), PruneOptions(fixed_keep_ratio=0.9))
    weights = base(**inputs, output_attentions=True).attentions[layer][0, :, -1].mean(0)
    expected = weights[inputs["input_ids"][0] == base.config.image_token_id]
    torch.testing.assert_close(done.importance_logits, expected, atol=1e-6, rtol=1e-4)


def test_a_budget_below_the_full_layers_is_refused():
    with pytest.raises(ValueError, match=r"'fastv': a budget of 0.2 .* \[1\] of 8 .* 0.25 "):
        FastV().check(PruneOptions(fixed_keep_ratio=0.2), 8)
    FastV(compact_cache=True).check(PruneOptions(fixed_keep_ratio=0.2), 8)
    assert math.isclose(FastV().shares(1.0, 8)[0], 1.0)


@pytest.mark.parametrize("layer", [-1, 8])
def test_a_layer_that_the_base_lacks_is_refused(layer):
    with pytest.raises(ValueError, match=rf"'fastv': (stages|read_layers) \[{layer}\] outside -?\d..7"):
        FastV(layer, compact_cache=True).check(PruneOptions(fixed_keep_ratio=0.5), 8)
