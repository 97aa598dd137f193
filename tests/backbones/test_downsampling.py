"""The parts of downsampling: prompts that lose image tokens, patches put together, resized and cut again."""

from __future__ import annotations

import pytest
import torch

from gp.backbones import backbone_of
from gp.backbones.downsampling import resize_pixels, shorten_prompts
from tests.support.tiny_models import tiny_inputs, tiny_llava, tiny_llava_inputs, tiny_qwen

IMAGE = 9


def test_prompts_lose_image_tokens_and_are_padded_on_the_left_again():
    inputs = {
        "input_ids": torch.tensor([[0, 0, 1, 9, 9, 9, 2, 3], [4, 9, 9, 5, 9, 9, 6, 7]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1]]),
        "mm_token_type_ids": torch.tensor([[0, 0, 0, 1, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1, 0, 0]]),
        "pixel_values": torch.zeros(7, 3),
    }
    out = shorten_prompts(inputs, IMAGE, [(1, 3), (2, 1), (1, 2)], [(1, 2), (1, 1), (1, 2)])
    assert out["input_ids"].tolist() == [[0, 0, 1, 9, 9, 2, 3], [4, 9, 5, 9, 9, 6, 7]]
    assert out["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1, 1], [1] * 7]
    assert out["mm_token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0, 0]]
    assert set(out) == {"input_ids", "attention_mask", "mm_token_type_ids"}


def test_prompts_without_a_mask_get_one():
    ids = torch.tensor([[1, 9, 9, 9, 2], [1, 9, 9, 9, 2]])
    out = shorten_prompts({"input_ids": ids}, IMAGE, [(1, 3), (3, 1)], [(1, 3), (1, 1)])
    assert out["input_ids"].tolist() == [[1, 9, 9, 9, 2], [0, 0, 1, 9, 2]]
    assert out["attention_mask"].tolist() == [[1] * 5, [0, 0, 1, 1, 1]]


def test_a_flat_image_stays_flat_and_a_ramp_a_ramp():
    flat = resize_pixels(torch.full((1, 3, 12, 20), 0.7), 6, 8)
    torch.testing.assert_close(flat, torch.full((1, 3, 6, 8), 0.7))
    ramp = torch.arange(24.0).expand(1, 1, 8, 24)
    inner = resize_pixels(ramp, 4, 12)[0, 0, 1, 3:-3]  # bicubic keeps straight lines, away from the edges
    torch.testing.assert_close(inner, torch.arange(6, 18, 2) + 0.5)
    assert resize_pixels(torch.zeros(1, 3, 4, 4, dtype=torch.bfloat16), 2, 2).dtype == torch.bfloat16


def test_the_same_size_changes_no_patch():
    base, inputs = backbone_of(tiny_qwen()), tiny_inputs([([(3, 5)], 4), ([(4, 2), (1, 3)], 6)])
    same = base.downsample(inputs, [(3, 5), (4, 2), (1, 3)])
    assert {key: value.shape for key, value in same.items()} == {key: value.shape for key, value in inputs.items()}
    for key, value in inputs.items():
        torch.testing.assert_close(same[key], value, atol=1e-5, rtol=1e-5)


def test_a_frame_that_stands_for_equal_ones_is_resized_as_they_are():
    backbone = backbone_of(tiny_qwen())
    inputs = tiny_inputs([([(4, 6)], 4), ([(4, 2), (2, 4)], 6)])
    frames = backbone.vision_config.temporal_patch_size
    one = torch.randn(len(inputs["pixel_values"]), 3, 1, inputs["pixel_values"].shape[1] // 3 // frames)
    many = {**inputs, "pixel_values": one.expand(-1, -1, frames, -1).flatten(1)}
    sizes = [(max(1, h // 2), max(1, w // 2)) for h, w in backbone.image_sizes(inputs)]
    small = backbone.downsample({**inputs, "pixel_values": one.flatten(1)}, sizes)["pixel_values"]
    of_many = backbone.downsample(many, sizes)["pixel_values"].view(len(small), 3, frames, -1)
    assert of_many.shape[1:] == (3, frames, one.shape[3])
    for frame in of_many.unbind(2):
        assert torch.equal(frame.flatten(1), small)


@pytest.mark.parametrize("sizes", [[(5, 5), (5, 5)], [(2, 4), (2, 4)]])
def test_llava_takes_any_one_size(sizes):
    base, inputs = backbone_of(tiny_llava()), tiny_llava_inputs([([(5, 5)], 4), ([(5, 5)], 6)])
    out = base.downsample(inputs, sizes)
    assert base.image_sizes(out) == sizes
    features = base.see(out, attended=[2])
    assert features.embeds.shape[0] == len(features.attention[2].received) == sum(h * w for h, w in sizes)
