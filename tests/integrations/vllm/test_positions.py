"""Positions of pruned prompts against those that the stock model gives to whole ones."""

from __future__ import annotations

import pytest
import torch

from gp.integrations.vllm.positions import PlacedImage, place_images, prompt_positions, take_places, with_places
from tests.support.tiny_models import IMAGE_PAD, tiny_inputs, tiny_qwen

GRIDS = [(2, 5), (7, 3), (1, 1)]  # wide, high, a single token


def whole_prompt(grids):
    """Ids and the stock model's positions of a prompt with these images, [N] and [3, N]."""
    inputs = tiny_inputs([(grids, 11)])
    ids = inputs["input_ids"]
    is_image = (ids == IMAGE_PAD).int()
    positions, delta = tiny_qwen().model.get_rope_index(ids, is_image, inputs.get("image_grid_thw"))
    return ids[0], positions[:, 0], int(delta)


def pruned_prompt(ids, keep):
    """Ids [R] of what is left, and the images that it holds."""
    is_image, images, start = ids == IMAGE_PAD, [], 0
    left = torch.ones_like(is_image)
    left[is_image] = torch.cat(keep)
    for mask in keep:
        offset = int(left[: is_image.nonzero()[start, 0]].sum())
        images.append(offset)
        start += len(mask)
    return left, images


@pytest.mark.parametrize("grids", [GRIDS, GRIDS[1:2], GRIDS[::-1], []], ids=str)
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("chunk", [3, 1000])
def test_kept_tokens_and_text_have_the_positions_of_the_whole_prompt(grids, share, chunk):
    ids, positions, delta = whole_prompt(grids)
    generator = torch.Generator().manual_seed(7)
    keep = [torch.rand(h * w, generator=generator) < share for h, w in grids]
    keep = [mask | (torch.arange(len(mask)) == 0) for mask in keep]  # at least one
    left, offsets = pruned_prompt(ids, keep) if grids else (torch.ones_like(ids).bool(), [])
    placed = [PlacedImage(at, int(mask.sum()), grid) for at, mask, grid in zip(offsets, keep, grids, strict=True)]
    found, found_delta = prompt_positions(int(left.sum()), placed)
    is_image = ids[left] == IMAGE_PAD
    assert torch.equal(found[:, ~is_image], positions[:, left][:, ~is_image])  # before any image is there
    assert found_delta == delta + int((~left).sum())

    rows_columns = [
        torch.stack([kept // grid[1], kept % grid[1]], 1)
        for kept, grid in zip([mask.nonzero()[:, 0] for mask in keep], grids, strict=True)
    ]
    rows_columns = torch.cat(rows_columns) if rows_columns else torch.empty(0, 2, dtype=torch.long)
    for start in range(0, len(is_image), chunk):  # as chunked prefill does
        before, here = int(is_image[:start].sum()), int(is_image[start : start + chunk].sum())
        found = place_images(found, is_image, start, rows_columns[before : before + here])
    assert torch.equal(found, positions[:, left])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_places_survive_narrow_numbers(dtype):
    embeds, grid = torch.randn(4, 8).to(dtype), (600, 700)
    kept = torch.tensor([0, 699, 257 * 700 + 259, 600 * 700 - 1])
    out, places = take_places(with_places(embeds, kept, grid))
    assert torch.equal(out, embeds)
    assert places.tolist() == [[0, 0], [0, 699], [257, 259], [599, 699]]
