"""Sizes of a model for the cost model, read from transformers' config objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from transformers import PretrainedConfig

Grid = tuple[int, int]  # (height, width) of an image in visual tokens


@dataclass(frozen=True)
class DecoderSizes:
    """A decoder with grouped-query attention and a gated MLP."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> DecoderSizes:
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=heads,
            kv_heads=config.num_key_value_heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocabulary=config.vocab_size,
        )

    @property
    def attention_size(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_size

    @property
    def kv_size(self) -> int:
        """Width of all keys (and of all values) of a token."""
        return self.kv_heads * self.head_size

    @property
    def layer_weights(self) -> int:
        """Entries of a layer's matrices."""
        attention = 2 * self.hidden * (self.attention_size + self.kv_size)
        return attention + 3 * self.hidden * self.inner

    @property
    def head_weights(self) -> int:
        return self.hidden * self.vocabulary


@dataclass(frozen=True)
class VisionSizes:
    """A vision tower: patch embedding, blocks, and what maps its output to the decoder.

    Args:
        blocks, hidden, inner: of the tower.
        mlp_matrices: 3 if the MLP is gated, else 2.
        patch_inputs: numbers in a patch.
        merge: side of the square of patches that becomes one visual token.
        class_tokens: tokens of each image beside its patches.
        window: side of an attention window in visual tokens; None: no windows.
        full_blocks: blocks without windows.
        projector: (inputs, outputs) of the matrices of merger or projector.
    """

    blocks: int
    hidden: int
    inner: int
    mlp_matrices: int
    patch_inputs: int
    merge: int
    class_tokens: int
    window: int | None
    full_blocks: int
    projector: tuple[tuple[int, int], ...]

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> VisionSizes:
        """Takes the config of the whole model.

        Raises:
            ValueError: a family that the cost model does not know.
        """
        if config.model_type not in _READERS:
            raise ValueError(f"no cost model for {config.model_type!r}; there is one for {', '.join(_READERS)}")
        return cls(**_READERS[config.model_type](config))

    def patches(self, grid: Grid) -> int:
        return grid[0] * grid[1] * self.merge**2

    def full_pairs(self, grid: Grid) -> int:
        """(query, key) pairs of an image in a block without windows."""
        return (self.patches(grid) + self.class_tokens) ** 2

    def window_pairs(self, grid: Grid) -> int:
        """(query, key) pairs of an image in a block with windows; windows at the border are smaller."""
        window: Any = self.window  # not asked of a tower without any
        heights, widths = (_parts(side, window) for side in grid)
        return sum(h * h for h in heights) * sum(w * w for w in widths) * self.merge**4


def _qwen2_5_vl(config: PretrainedConfig) -> dict:
    vision = config.vision_config
    merged = vision.hidden_size * vision.spatial_merge_size**2
    return {
        "blocks": vision.depth,
        "hidden": vision.hidden_size,
        "inner": vision.intermediate_size,
        "mlp_matrices": 3,
        "patch_inputs": vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
        "merge": vision.spatial_merge_size,
        "class_tokens": 0,
        "window": vision.window_size // vision.patch_size // vision.spatial_merge_size,
        "full_blocks": len(set(vision.fullatt_block_indexes) & set(range(vision.depth))),
        "projector": ((merged, merged), (merged, vision.out_hidden_size)),
    }


def _llava(config: PretrainedConfig) -> dict:
    vision, hidden = config.vision_config, config.text_config.hidden_size
    return {
        "blocks": vision.num_hidden_layers,
        "hidden": vision.hidden_size,
        "inner": vision.intermediate_size,
        "mlp_matrices": 2,
        "patch_inputs": vision.num_channels * vision.patch_size**2,
        "merge": 1,
        "class_tokens": 1,
        "window": None,
        "full_blocks": vision.num_hidden_layers,
        "projector": ((vision.hidden_size, hidden), (hidden, hidden)),
    }


def _qwen3_vl(config: PretrainedConfig) -> dict:
    vision = config.vision_config
    merged = vision.hidden_size * vision.spatial_merge_size**2
    mergers = 1 + len(vision.deepstack_visual_indexes)
    return {
        "blocks": vision.depth,
        "hidden": vision.hidden_size,
        "inner": vision.intermediate_size,
        "mlp_matrices": 2,
        "patch_inputs": vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
        "merge": vision.spatial_merge_size,
        "class_tokens": 0,
        "window": None,
        "full_blocks": vision.depth,
        "projector": ((merged, merged), (merged, vision.out_hidden_size)) * mergers,
    }


_READERS = {"qwen2_5_vl": _qwen2_5_vl, "qwen3_vl": _qwen3_vl, "llava": _llava}


def _parts(side: int, window: int) -> Sequence[int]:
    """Lengths of the windows along a side."""
    return [min(window, side - start * window) for start in range(ceil(side / window))]
