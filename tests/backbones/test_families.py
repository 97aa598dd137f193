"""What every family's adapter must do, and what is peculiar to one."""

from __future__ import annotations

import pytest
import torch

from gp.backbones import backbone_of
from gp.engine.prefill import prefill
from gp.pruners import RandomPruner
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.tiny_models import FAMILIES, tiny_inputs, tiny_qwen3

pytestmark = pytest.mark.core

PROMPTS = [([(4, 6)], 9), ([(2, 2), (6, 4)], 7), ([], 5)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 3)], ids=["unpadded", "padded"])
def test_keeping_everything_gives_the_stock_logits_to_the_last_bit(family, rows):
    base = family.make()
    inputs = family.inputs(family.fit(PROMPTS[rows]))
    done = prefill(backbone_of(base), inputs, logits_to_keep=0)
    real = inputs["attention_mask"].bool()
    # given, because LLaVA's forward counts padding where its `generate` does not
    positions = done.position_ids if len(done.position_ids) > 1 else done.position_ids[0]
    assert torch.equal(done.logits[real], base(**inputs, position_ids=positions).logits[real])


def test_the_query_is_the_one_that_the_layer_uses(family):
    """Attention weights of the stock layer, from the adapter's query and the cached keys."""
    base = family.make(attn_implementation="eager")
    backbone, inputs = backbone_of(base), family.inputs(family.fit(PROMPTS[:1]))
    prompt = backbone.embed(inputs)
    rotary = backbone.rotary(prompt.hidden, prompt.position_ids)
    query = backbone.query(0, prompt.hidden[:, -1:], tuple(x[:, -1:] for x in rotary))
    keys = prefill(backbone, inputs).cache.layers[0].keys
    keys = keys.repeat_interleave(query.shape[1] // keys.shape[1], dim=1)
    weights = torch.einsum("baqd,bakd->baqk", query, keys).div(query.shape[-1] ** 0.5).softmax(-1)
    stock = base(**inputs, output_attentions=True).attentions[0][:, :, -1:]
    assert torch.allclose(weights, stock, atol=1e-6)


@pytest.fixture(scope="module")
def qwen3():
    return tiny_qwen3()


def test_taps_of_qwen3_are_block_outputs_averaged_over_patches(qwen3):
    inputs = tiny_inputs(PROMPTS[:2])
    seen = backbone_of(qwen3).see(inputs, [0, 3])
    grid = inputs["image_grid_thw"]
    last = qwen3.model.visual(inputs["pixel_values"], grid_thw=grid).last_hidden_state
    assert torch.allclose(seen.taps[3], last.view(-1, 4, last.shape[-1]).mean(1), atol=1e-6)
    alone = {"pixel_values": inputs["pixel_values"][: 4 * 24], "image_grid_thw": grid[:1]}
    assert torch.allclose(backbone_of(qwen3).see(alone, [0]).taps[0], seen.taps[0][:24], atol=1e-5)
    assert not torch.allclose(seen.taps[0], seen.taps[3], atol=0.1)


def test_deepstack_of_qwen3_matters_and_is_dropped_along(qwen3):
    """Kept tokens keep their own features, if others are dropped before the first layer or between two additions."""
    inputs, options = tiny_inputs(PROMPTS[:2]), PruneOptions(fixed_keep_ratio=0.5)
    backbone = micro_glimpse(qwen3).backbone
    features = backbone.see(inputs)
    assert sorted(features.deepstack) == [0, 1] and features.deepstack[0].shape == features.embeds.shape
    for stage in (-1, 0):
        with_all = prefill(backbone, inputs, RandomPruner(stage), options, images=features)
        dropped = ~with_all.keep_mask
        scrambled = {k: v.masked_fill(dropped[:, None], 1e3) if k > stage else v for k, v in features.deepstack.items()}
        again = type(features)(features.embeds, features.taps, deepstack=scrambled)
        same = prefill(backbone, inputs, RandomPruner(stage), options, images=again)
        assert torch.equal(with_all.logits, same.logits)
        without = type(features)(features.embeds, features.taps)
        assert not torch.allclose(
            with_all.logits, prefill(backbone, inputs, RandomPruner(stage), options, images=without).logits, atol=0.1
        )
