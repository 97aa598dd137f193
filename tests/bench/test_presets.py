"""Sizes, inputs and kept tokens of the presets."""

from __future__ import annotations

import pytest
import torch

from gp.bench.presets import PRESETS, near_square, random_inputs, random_model, spread_counts


@pytest.mark.parametrize(
    ("name", "parameters"), [("qwen3b", 3_754_622_976), ("qwen7b", 8_292_166_656)]
)  # of the released checkpoints
def test_presets_have_the_released_sizes(name, parameters):
    base = random_model(PRESETS[name], "meta").base
    assert sum(p.numel() for p in base.parameters()) == parameters


def test_mid_is_about_75_million():
    text = random_model(PRESETS["mid"], "meta").backbone.text_model
    assert 55e6 < sum(p.numel() for p in text.parameters()) + 512 * 16384 < 80e6


def test_inputs_fit_the_model():
    preset = PRESETS["tiny"]
    inputs = random_inputs(preset, grid=(2, 3))
    assert inputs["input_ids"].shape == (1, preset.text + 6)
    random_model(preset).prefill(inputs, "none")


def test_stock_reads_the_inputs_as_gp_does():
    """Positions along three axes, which stock takes from the types of tokens."""
    model, inputs = random_model(PRESETS["tiny"]), random_inputs(PRESETS["tiny"])
    with torch.no_grad():
        expected = model.base(**inputs).logits[:, -1]
    torch.testing.assert_close(model.prefill(inputs, "none").logits.flatten(0, -2), expected, atol=1e-4, rtol=1e-4)


def test_random_weights_repeat():
    first, second = (random_model(PRESETS["tiny"]).base.lm_head.weight for _ in range(2))
    assert torch.equal(first, second)


def test_uneven_rows_keep_the_mean():
    assert spread_counts(10, 100, 1) == (10,)
    assert sum(spread_counts(102, 1024, 8)) == pytest.approx(8 * 102, abs=8)
    assert min(spread_counts(1, 16, 8)) == 1 and max(spread_counts(15, 16, 8)) == 16


def test_factors():
    assert near_square(102) == (6, 17) and near_square(1024) == (32, 32) and near_square(103) == (1, 103)
