"""Smaller images behind the same prompts: pixels are resized, image tokens taken out, rows padded on the left again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Size = tuple[int, int]  # height and width


def resize_pixels(images: Tensor, height: int, width: int) -> Tensor:
    """Resizes [n, 3, ., .] to [n, 3, height, width] pixels: bicubic with anti-aliasing, as the image processors do."""
    if tuple(images.shape[-2:]) == (height, width):
        return images
    return nn.functional.interpolate(images.float(), (height, width), mode="bicubic", antialias=True).to(images.dtype)


def shorten_prompts(
    inputs: Mapping[str, Tensor], image_token_id: int, old: Sequence[Size], new: Sequence[Size]
) -> dict[str, Tensor]:
    """Takes image tokens out of the prompts, so that each image has as many as its new size needs.

    Args:
        inputs: `input_ids` [B, S], and other tensors of that shape.
        image_token_id: marks the image tokens.
        old: (height, width) in visual tokens of every image, in order.
        new: the same after resizing; none has more tokens than before.

    Returns:
        The tensors of shape [B, S] as [B, S'], S' the longest row, padded on the left with 0.
    """
    ids = inputs["input_ids"]
    keep = inputs.get("attention_mask", torch.ones_like(ids)).bool()
    is_visual = (ids == image_token_id) & keep
    wanted = torch.cat([torch.arange(h * w) < a * b for (h, w), (a, b) in zip(old, new, strict=True)])
    keep = keep.masked_scatter(is_visual, wanted.to(keep.device))
    longest = int(keep.sum(1).max())
    index = keep.byte().argsort(dim=1, stable=True)[:, -longest:]
    kept = keep.gather(1, index)
    rows = {name: value for name, value in inputs.items() if value.shape == ids.shape}
    rows.setdefault("attention_mask", torch.ones_like(ids))
    return {name: value.gather(1, index) * kept for name, value in rows.items()}
