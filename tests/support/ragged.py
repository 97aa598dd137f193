"""Prompts of different lengths in one batch, and each of them as a batch of its own."""

from __future__ import annotations

from torch import Tensor

RAGGED = [([(4, 6)], 9), ([(2, 2), (6, 4)], 7), ([], 5), ([(6, 6)], 14)]


def rows_alone(inputs: dict[str, Tensor], prompts: list) -> list[dict[str, Tensor]]:
    """Every prompt of a batch as a batch of one, unpadded."""
    out, patch, image = [], 0, 0
    for row, (grids, _) in enumerate(prompts):
        real = inputs["attention_mask"][row].bool()
        single = {k: v[row : row + 1, real] for k, v in inputs.items() if v.shape == inputs["input_ids"].shape}
        images = slice(image, image + len(grids))
        if grids and "image_grid_thw" in inputs:
            num_patches = sum(4 * h * w for h, w in grids)
            single["pixel_values"] = inputs["pixel_values"][patch : patch + num_patches]
            single["image_grid_thw"] = inputs["image_grid_thw"][images]
            patch += num_patches
        elif grids:
            single["pixel_values"] = inputs["pixel_values"][images]
        image += len(grids)
        out.append(single)
    return out
