"""PyramidDrop against numbers worked out here, and against the weights of transformers' eager attention."""

from __future__ import annotations

import pytest
import torch

from gp.model import GlimpseModel
from gp.pruners.pyramid_drop import PyramidDrop, default_layers
from gp.types import PruneOptions
from tests.support.tiny_models import FAMILIES
from tests.support.views import hand_view, kept

# attention that the next layer would pay to 8 visual tokens, 2 heads each
WEIGHTS = [(0.1, 0.1), (0.02, 0.3), (0.05, 0.01), (0.0, 0.12), (0.2, 0.2), (0.04, 0.04), (0.01, 0.02), (0.03, 0.08)]
ONES = [[1.0]] * 8


def mean_share(layers, ratios, num_layers) -> float:
    """Mean over layers of the share of tokens that a layer works on, layer by layer."""
    shares = []
    for layer in range(num_layers):
        passed = sum(stage < layer for stage in layers)
        shares.append(1.0 if passed == 0 else ratios[passed - 1])
    return sum(shares) / num_layers


def shown(stage, alive=None):
    def look_ahead(rotate):
        assert rotate
        return torch.tensor(WEIGHTS).log()

    alive = torch.ones(8, dtype=torch.bool) if alive is None else alive
    return hand_view(ONES, stage=stage, look_ahead=look_ahead, alive=alive)


def test_a_stage_keeps_the_best_of_what_is_left():
    # means: 0.1, 0.16, 0.03, 0.06, 0.2, 0.04, 0.015, 0.055
    pruner = PyramidDrop([1, 3, 5], compact_cache=True)  # 1/2 at last, so lambda = 0.794: 6, 5 and 4 of 8 tokens
    assert [int(8 * 0.5 ** (i / 3) + 1e-6) for i in (1, 2, 3)] == [6, 5, 4]
    assert kept(pruner, shown(1)) == [0, 1, 3, 4, 5, 7]
    alive = torch.tensor([True, True, True, True, False, True, True, False])
    assert kept(pruner, shown(3, alive)) == [0, 1, 2, 3, 5]
    assert kept(pruner, shown(5, alive)) == [0, 1, 3, 5]


@pytest.mark.parametrize(
    ("num_layers", "budget", "ratio"),
    [
        (32, 0.111, 0.191),
        (32, 0.222, 0.419),
        (32, 0.333, 0.559),
        (28, 0.111, 0.169),
        (28, 0.222, 0.411),
        (28, 0.333, 0.555),
        (36, 0.111, 0.207),
        (36, 0.222, 0.425),
        (36, 0.333, 0.563),
    ],
)
def test_the_table_of_ratios(num_layers, budget, ratio):
    layers = default_layers(num_layers)
    shares = PyramidDrop(layers).shares(budget, num_layers)
    assert shares == pytest.approx([ratio, ratio**2, ratio**3], abs=2e-3)
    assert mean_share(layers, shares, num_layers) == pytest.approx(budget)


def test_the_published_default_is_a_budget_of_47_percent():
    layers = [7, 15, 23]
    assert mean_share(layers, [0.5, 0.25, 0.125], 32) == pytest.approx(0.469, abs=5e-4)
    assert PyramidDrop(layers).shares(0.46875, 32) == pytest.approx([0.5, 0.25, 0.125], abs=1e-6)
    assert PyramidDrop(layers).shares(1.0, 32) == pytest.approx([1.0, 1.0, 1.0])


def test_default_layers():
    assert [default_layers(n) for n in (28, 32, 36)] == [(1, 6, 13), (1, 7, 15), (1, 8, 17)]  # after 2, L/4, L/2
    for num_layers in range(4, 80):
        layers = default_layers(num_layers)
        assert list(layers) == sorted(set(layers)) and layers[0] >= 0 and layers[-1] < num_layers - 1


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_scores_are_what_the_next_layer_will_pay(family):
    """One stage, nothing kept out yet: the weights of the stock model's next layer, which sees all tokens there."""
    base = family.make(attn_implementation="eager")
    inputs = family.inputs(family.fit([([(3, 4)], 7)]))
    done = GlimpseModel(base).prefill(inputs, PyramidDrop([1]), PruneOptions(fixed_keep_ratio=0.9))
    weights = base(**inputs, output_attentions=True).attentions[2][0, :, -1].mean(0)
    expected = weights[inputs["input_ids"][0] == base.config.image_token_id]
    torch.testing.assert_close(done.importance_logits, expected, atol=1e-6, rtol=1e-4)


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match=r"'pyramid_drop': .*0\.24 "):
        PyramidDrop([7, 15, 23]).check(PruneOptions(fixed_keep_ratio=0.24), 32)
    for layers in ([], [3, 1], [1, 1]):
        with pytest.raises(ValueError, match="must increase"):
            PyramidDrop(layers)
    family = FAMILIES["qwen2_5_vl"]
    inputs = family.inputs(family.fit([([(2, 2)], 4)]))
    with pytest.raises(ValueError, match=r"'pyramid_drop' .*layer 3\b"):
        GlimpseModel(family.make()).prefill(inputs, PyramidDrop([1, 3]), PruneOptions(fixed_keep_ratio=0.9))
