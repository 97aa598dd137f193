"""LLaVA with a SigLIP tower: no [CLS] token, every patch is a visual token."""

from __future__ import annotations

import pytest
import torch
from transformers import LlavaForConditionalGeneration, SiglipVisionConfig

import gp
from gp.backbones import backbone_of
from gp.engine.prefill import prefill
from tests.support.glimpses import micro_glimpse
from tests.support.tiny_models import LLAVA_SIDE, PATCH_PX, tiny_llava, tiny_llava_inputs

pytestmark = pytest.mark.core

GRID = (LLAVA_SIDE, LLAVA_SIDE)
PROMPTS = [([GRID], 9), ([GRID, GRID], 7), ([], 5)]
DEPTH = 4


@pytest.fixture(scope="module")
def base() -> LlavaForConditionalGeneration:
    """The micro LLaVA of the other tests, on another tower."""
    config = tiny_llava().config
    config.vision_config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=DEPTH, num_attention_heads=2,
        image_size=LLAVA_SIDE * PATCH_PX, patch_size=PATCH_PX,
    )  # fmt: skip
    config.vision_feature_select_strategy = "full"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
        for weight in model.model.vision_tower.parameters():  # attention that is far from flat
            torch.nn.init.normal_(weight, std=0.15)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    return tiny_llava_inputs(PROMPTS)


@pytest.mark.parametrize("layers", [-2, [-3, -1]], ids=["one layer", "two layers"])
def test_keeping_everything_gives_the_stock_logits(base, inputs, layers):
    if layers != -2:
        config = base.config.from_dict({**base.config.to_dict(), "vision_feature_layer": layers})
        base = LlavaForConditionalGeneration(config).requires_grad_(False).eval()
    done = prefill(backbone_of(base), inputs, logits_to_keep=0)
    real = inputs["attention_mask"].bool()
    expected = base(**inputs, position_ids=done.position_ids[0]).logits
    assert torch.equal(done.logits[real], expected[real])


def test_taps_are_the_towers_hidden_states(base, inputs):
    seen = backbone_of(base).see(inputs, [0, 1, DEPTH])
    states = base.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states
    for tap in (0, 1):
        assert torch.equal(seen.taps[tap], states[tap].flatten(0, 1))
    last = base.model.vision_tower.post_layernorm(seen.taps[DEPTH]).unflatten(0, (3, -1))
    assert torch.allclose(last, base.model.vision_tower(inputs["pixel_values"]).last_hidden_state, atol=1e-6)


def test_attention_is_what_patches_receive(base, inputs):
    """As the stock block computes it with weights that it returns."""
    block = 2
    seen = backbone_of(base).see(inputs, attended=[block]).attention[block]
    layer = base.model.vision_tower.encoder.layers[block]
    hidden = base.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[block]
    layer.self_attn.config._attn_implementation = "eager"
    try:
        _, weights = layer.self_attn(layer.layer_norm1(hidden), output_attentions=True)
    finally:
        layer.self_attn.config._attn_implementation = "sdpa"
    assert torch.allclose(seen.received, weights.mean(1).sum(1).flatten(), atol=1e-5)


@pytest.mark.parametrize("method", ["glimpse", "fastv", "visionzip", "divprune", "cdpruner", "vscan", "downsample"])
def test_methods_run(base, inputs, method):
    model = micro_glimpse(base)
    out = model.generate(**inputs, pruner=method, fixed_keep_ratio=0.7, max_new_tokens=3)
    assert out.shape == (3, inputs["input_ids"].shape[1] + 3)


def test_everything_kept_generates_what_stock_generates(base, inputs):
    one = tiny_llava_inputs(PROMPTS[:1])
    wrapped = gp.prune(base)
    stock = base.generate(**one, max_new_tokens=6, do_sample=False)
    assert torch.equal(wrapped.generate(**one, pruner="none", max_new_tokens=6, do_sample=False), stock)
