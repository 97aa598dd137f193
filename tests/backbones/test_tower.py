"""Products in other shapes: the same features, on a tower that nobody has touched."""

from __future__ import annotations

import copy

import pytest
import torch

from gp.backbones import backbone_of
from gp.backbones.tower import PaddedMLPs, PatchProduct, padded_mlp, patch_products
from tests.support.tiny_models import FAMILIES

PROMPTS = [([(4, 6)], 9), ([(6, 6)], 5)]
QWENS = ["qwen2_5_vl", "qwen3_vl"]


@pytest.fixture(params=QWENS)
def family(request):
    return FAMILIES[request.param]


def test_patches_as_a_product_are_the_convolution(family):
    patch_embed = family.make().model.visual.patch_embed
    (convolution, product), *others = patch_products(patch_embed).items()
    assert convolution is patch_embed.proj and not others
    patches = torch.randn(40, *convolution.weight.shape[1:])
    torch.testing.assert_close(product(patches), convolution(patches).flatten(1), atol=1e-5, rtol=0)


def test_no_product_where_it_would_round_otherwise_or_something_is_hung_around():
    patch_embed = FAMILIES["qwen2_5_vl"].make().model.visual.patch_embed
    handle = patch_embed.proj.register_forward_hook(lambda *_: None)
    assert not patch_products(patch_embed)
    handle.remove()
    assert patch_products(patch_embed) and not patch_products(copy.deepcopy(patch_embed).bfloat16())
    patch_embed.proj.stride = (1, 1, 1)
    assert not patch_products(patch_embed)


def test_a_tower_takes_the_product_and_keeps_its_convolution(family, monkeypatch):
    base, seen = family.make(), []
    forward = PatchProduct.forward
    monkeypatch.setattr(PatchProduct, "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    backbone = backbone_of(base)
    backbone.see(family.inputs(PROMPTS))
    assert not seen  # to the last bit as stock
    backbone.fast_tower = True
    backbone.see(family.inputs(PROMPTS))
    assert seen == [4 * (24 + 36)]
    assert type(base.model.visual.patch_embed.proj) is torch.nn.Conv3d


def test_one_frame_stands_for_equal_ones(family):
    base, inputs = family.make(), family.inputs(PROMPTS)
    backbone = backbone_of(base)
    assert not backbone.takes_one_frame  # asked for, like the rest
    frames = inputs["pixel_values"].unflatten(1, (3, 2, -1))  # [N, C, T, P]
    one = frames[:, :, :1]
    plain = backbone.see({**inputs, "pixel_values": one.expand_as(frames).flatten(1)}, [0, 3])
    backbone.fast_tower = True
    assert backbone.takes_one_frame
    seen = backbone.see({**inputs, "pixel_values": one.flatten(1)}, [0, 3])
    torch.testing.assert_close(seen.embeds, plain.embeds, atol=1e-5, rtol=1e-5)
    for tap in (0, 3):
        torch.testing.assert_close(seen.taps[tap], plain.taps[tap], atol=1e-5, rtol=1e-5)


def test_padded_mlps_give_the_same_features(family):
    base, inputs = family.make(), family.inputs(PROMPTS)
    backbone = backbone_of(base)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    taps = [0, 3]
    plain = backbone.see(inputs, taps)
    backbone.fast_tower = True
    padded = backbone.see(inputs, taps)
    torch.testing.assert_close(padded.embeds, plain.embeds, atol=1e-5, rtol=1e-5)
    for tap in taps:
        torch.testing.assert_close(padded.taps[tap], plain.taps[tap], atol=1e-5, rtol=1e-5)
    copies = backbone._padded.of(block.mlp for block in base.model.visual.blocks)
    assert len(copies) == len(base.model.visual.blocks)
    widths = {part.out_features for mlp in copies.values() for part in mlp.children() if hasattr(part, "out_features")}
    assert 128 in widths and widths <= {128, base.model.visual.config.hidden_size}
    assert all(torch.equal(weight, before[name]) for name, weight in base.state_dict().items())


def test_padding_hangs_on_no_value_of_the_activation(family):
    """With weights far from small, and biases where the family has them."""
    mlp = family.make().model.visual.blocks[0].mlp
    states = 5 * torch.randn(7, 32)
    for weight in mlp.parameters():
        weight.normal_()
    torch.testing.assert_close(padded_mlp(mlp)(states), mlp(states), atol=1e-4, rtol=1e-5)


def test_copies_are_made_once_and_again_when_weights_move():
    mlp, copies = FAMILIES["qwen2_5_vl"].make().model.visual.blocks[0].mlp, PaddedMLPs()
    first = copies.of([mlp])[mlp]
    assert copies.of([mlp])[mlp] is first
    mlp.double()
    again = copies.of([mlp])[mlp]
    assert again is not first and next(again.parameters()).dtype == torch.float64


def test_wide_enough_or_unknown_mlps_stay():
    mlp = FAMILIES["qwen2_5_vl"].make().model.visual.blocks[0].mlp
    assert not PaddedMLPs().of([padded_mlp(mlp), torch.nn.Sequential(torch.nn.Linear(3, 5))])
