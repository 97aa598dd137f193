"""Deals the images of a batch to its prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gp.types import VisualLayout

VIDEO_KEYS = ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts")


def refuse_videos(inputs: Mapping[str, Any]) -> None:
    """Raises ValueError if there is a video among what a processor returned."""
    if found := [key for key in VIDEO_KEYS if inputs.get(key) is not None]:
        raise ValueError(f"{found[0]}: videos are not pruned yet; pass images")


def deal_images(grids: Sequence[tuple[int, int]], per_row: Sequence[int], device: torch.device) -> VisualLayout:
    """Deals the images to the rows of the batch, checking that tokens and features match.

    Args:
        grids: (height, width) of every image in merged tokens, in order.
        per_row: image tokens of each prompt.
        device: of the tensors made from the layout.

    Raises:
        ValueError: image tokens and images that do not match.
    """
    wanted, given = sum(per_row), sum(h * w for h, w in grids)
    if wanted != given:
        raise ValueError(
            f"the prompts hold {wanted} image tokens, but the {len(grids)} images given yield {given} features"
        )
    rows, row, left = [], 0, per_row[0] if per_row else 0
    for height, width in grids:
        while left == 0:
            row += 1
            left = per_row[row]
        rows.append(row)
        left -= height * width
        if left < 0:
            raise ValueError(f"prompt {row}: its image tokens end inside an image of {height} x {width} tokens")
    return VisualLayout(tuple(grids), tuple(rows), len(per_row), device)


def refuse_right_padding(mask: Tensor) -> None:
    """Raises ValueError if a row of the mask [B, S] ends with padding."""
    if not bool(mask[:, -1].all()):
        raise ValueError(
            "prompts must be padded on the left, but the last position of a row is padding: "
            "set processor.tokenizer.padding_side = 'left'"
        )
