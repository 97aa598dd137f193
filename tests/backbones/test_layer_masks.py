"""Layers share a mask exactly if nothing was dropped between them."""

from __future__ import annotations

import torch

from gp.backbones import LayerMasks
from tests.support.views import prompt_of_rows

PADDED = [[0, 1, 1], [1, 1, 1]]
FULL = [[1, 1], [1, 1]]


def masks_of(masks: LayerMasks) -> list[list]:
    return [mask.int().tolist() for mask in masks]


def test_layers_on_one_prompt_share_its_mask():
    masks, prompt = LayerMasks(), prompt_of_rows(FULL)
    for _ in range(3):
        masks.add_layer(prompt)
    assert masks_of(masks) == [FULL] * 3 and len(masks.distinct) == 1
    assert not masks.is_ragged and not masks.has_padding


def test_what_later_layers_hold_is_another_mask_until_all_are_compacted():
    masks = LayerMasks()
    masks.add_layer(prompt_of_rows(PADDED))
    shorter = prompt_of_rows(FULL)
    masks.add_layer(shorter)
    masks.add_layer(shorter)
    assert masks_of(masks) == [PADDED, FULL, FULL] and masks.of_layer == [0, 1, 1]
    assert masks.is_ragged and masks.has_padding
    masks.compact(shorter)
    masks.add_layer(shorter)
    assert masks_of(masks) == [FULL] * 4
    assert not masks.is_ragged and not masks.has_padding


def test_a_drop_before_the_first_layer_leaves_one_mask():
    masks, prompt = LayerMasks(), prompt_of_rows(PADDED)
    masks.compact(prompt)
    masks.add_layer(prompt)
    assert masks_of(masks) == [PADDED] and masks.has_padding
    assert torch.equal(masks[0], prompt.attention_mask)
