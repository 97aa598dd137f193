"""What methods read of vLLM's own vision towers: attention of some blocks, hidden states behind some layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from torch import Tensor

from gp.backbones.vision_attention import token_attention
from gp.types import VisionAttention


@dataclass
class Recorded:
    """What the modules of a tower were called with and gave, in one pass.

    Args:
        calls: vision block -> queries and keys that its attention was called with.
        states: vision layer -> its output.
    """

    calls: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    states: dict[int, Tensor] = field(default_factory=dict)


@contextmanager
def record(
    attention: Mapping[int, Any], given: Mapping[int, Any] | None = None, made: Mapping[int, Any] | None = None
) -> Iterator[Recorded]:
    """Collects while the tower runs; modules that vLLM may compile pass hooks by, so those named here are inside.

    Args:
        attention: vision block -> its attention module.
        given: vision layer -> a module whose first argument is the layer's output.
        made: vision layer -> a module whose output is the layer's.
    """
    found = Recorded()

    def call_of(block: int) -> Any:
        def before(module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
            found.calls[block] = (kwargs["query"], kwargs["key"]) if kwargs else (args[0], args[1])

        return before

    def given_to(layer: int) -> Any:
        def before(module: Any, args: tuple) -> None:
            found.states[layer] = args[0].clone()  # norms of a GPU write over what they add

        return before

    def made_by(layer: int) -> Any:
        def behind(module: Any, args: tuple, output: Tensor) -> None:
            found.states[layer] = output

        return behind

    hooks = [one.register_forward_pre_hook(call_of(k), with_kwargs=True) for k, one in attention.items()]
    hooks += [one.register_forward_pre_hook(given_to(k)) for k, one in (given or {}).items()]
    hooks += [one.register_forward_hook(made_by(k)) for k, one in (made or {}).items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def behind_block(visual: Any, block: int) -> Any:
    """The norm that is given what a block of a Qwen tower makes."""
    if block + 1 < len(visual.blocks):
        return visual.blocks[block + 1].norm1
    merger = visual.merger
    return merger.ln_q if hasattr(merger, "ln_q") else merger.norm


def raster_orders(visual: Any, grids: Sequence[tuple[int, int]]) -> list[Tensor | None]:
    """For each image the places in a Qwen tower of its visual tokens in raster order; None: they stand so already.

    Args:
        visual: vLLM's tower, with windows or without.
        grids: (height, width) of the images in visual tokens.
    """
    if not hasattr(visual, "get_window_index_thw"):
        return [None] * len(grids)
    merge = visual.spatial_merge_size
    return [visual.get_window_index_thw(1, h * merge, w * merge)[0].argsort() for h, w in grids]


def attention_by_image(
    visual: Any, call: tuple[Tensor, Tensor], grids: Sequence[tuple[int, int]]
) -> list[VisionAttention]:
    """Attention that each visual token of each image received in a Qwen tower, raster order.

    Args:
        visual: vLLM's tower.
        call: queries and keys of a block that sees whole images, [1, K, H, d], rotated.
        grids: (height, width) of the images in visual tokens.
    """
    patches_per_token = visual.spatial_merge_size**2
    ends = [0, *accumulate(h * w for h, w in grids)]
    query, keys = (states[0].transpose(0, 1).float() for states in call)
    looks = token_attention(query, keys, [patches_per_token * end for end in ends], patches_per_token)
    images = []
    for number, order in enumerate(raster_orders(visual, grids)):
        here = slice(ends[number], ends[number + 1])
        look = VisionAttention(looks.received[here], looks.keys[here])
        images.append(look if order is None else look.ordered(order.to(look.keys.device)))
    return images


def states_by_image(visual: Any, states: Tensor, grids: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Features [V, C] of each image behind a layer of a Qwen tower: mean over a token's patches, raster order.

    Args:
        visual: vLLM's tower.
        states: [K, 1, C].
        grids: (height, width) of the images in visual tokens.
    """
    merged = states.flatten(0, -2).unflatten(0, (-1, visual.spatial_merge_size**2)).mean(1)
    parts = merged.split([h * w for h, w in grids])
    orders = raster_orders(visual, grids)
    return [part if order is None else part[order.to(part.device)] for part, order in zip(parts, orders, strict=True)]
