"""Attention of vLLM's own vision tower, for methods that rank tokens by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from torch import Tensor

from gp.backbones.vision_attention import token_attention
from gp.types import VisionAttention


@contextmanager
def record_queries_and_keys(visual: Any, blocks: Sequence[int]) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
    """Collects what the attention of some vision blocks is called with: block -> queries and keys [1, K, H, d]."""
    calls: dict[int, tuple[Tensor, Tensor]] = {}

    def recorder(block: int) -> Any:
        def record(module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
            calls[block] = (kwargs["query"], kwargs["key"])

        return record

    modules = {block: visual.blocks[block].attn.attn for block in blocks}
    hooks = [one.register_forward_pre_hook(recorder(block), with_kwargs=True) for block, one in modules.items()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def attention_by_image(
    visual: Any, call: tuple[Tensor, Tensor], grids: Sequence[Sequence[int]]
) -> list[VisionAttention]:
    """Attention that each visual token of each image received, raster order.

    Args:
        visual: vLLM's `Qwen2_5_VisionTransformer`.
        call: queries and keys of a block that sees whole images, [1, K, H, d], rotated.
        grids: (time, height, width) of the images in patches.
    """
    patches_per_token = visual.spatial_merge_size**2
    ends = [0, *accumulate(t * h * w for t, h, w in grids)]
    query, keys = (states[0].transpose(0, 1).float() for states in call)
    looks = token_attention(query, keys, ends, patches_per_token)
    images = []
    for number, (t, h, w) in enumerate(grids):
        here = slice(ends[number] // patches_per_token, ends[number + 1] // patches_per_token)
        order, _ = visual.get_window_index_thw(t, h, w)  # of an image's tokens in the tower
        raster = order.argsort().to(keys.device)
        images.append(VisionAttention(looks.received[here][raster], looks.keys[here][raster]))
    return images
