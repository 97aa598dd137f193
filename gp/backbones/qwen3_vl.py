"""Qwen3-VL (2B to 32B, dense) on transformers' stock `Qwen3VLForConditionalGeneration`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gp.backbones.attention import Rotary, rotate
from gp.backbones.processor import Qwen3VLProcessor
from gp.backbones.qwen2_5_vl import Qwen2_5_VL
from gp.backbones.sharded import run_part


class Qwen3VL(Qwen2_5_VL):
    """Qwen2.5-VL with three differences.

    The vision tower has no windows, so its blocks work in raster order. Features of some of its blocks are added to
    the visual tokens behind the first decoder layers (deepstack). Queries and keys are normalised per head.
    """

    model_type = "qwen3_vl"
    processor = Qwen3VLProcessor
    window = None

    @property
    def attention_blocks(self) -> tuple[int, int]:
        """Block a quarter of the way up, and the last one: all blocks see the whole image."""
        return max(self.vision_config.depth // 4 - 1, 0), self.vision_config.depth - 1

    def query(self, index: int, hidden: Tensor, rotary: Rotary | None) -> Tensor:
        attention, normed = self._attention_input(index, hidden)
        heads = run_part(attention.q_proj, normed).unflatten(-1, (self.num_heads, -1))
        return rotate(run_part(attention.q_norm, heads).transpose(1, 2), rotary)

    def key(self, index: int, hidden: Tensor, rotary: Rotary | None) -> Tensor:
        attention, normed = self._attention_input(index, hidden)
        heads = run_part(attention.k_proj, normed).unflatten(-1, (self.text_config.num_key_value_heads, -1))
        return rotate(run_part(attention.k_norm, heads).transpose(1, 2), rotary)

    def _attention_input(self, index: int, hidden: Tensor) -> tuple[Any, Tensor]:
        decoder_layer = self.decoder_layer(index)
        return decoder_layer.self_attn, run_part(decoder_layer.input_layernorm, hidden)

    def _deepstack(self, seen: Any) -> dict[int, Tensor]:
        """The k-th deepstack feature belongs behind decoder layer k."""
        return dict(enumerate(seen.deepstack_features))
