"""One new token per row behind a cache with room: the decoder as a function of tensors whose shapes stay the same.

What `generate` asks of a decoder token by token, without anything that differs from one token to the next but the
values of tensors, so that it can be compiled as one graph, or captured: keys and values are written in place, and
where the token stands, what it may see and how many there are so far are tensors, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from gp.backbones.base import Backbone
from gp.backbones.views import view_with_kernel

NAME = "sdpa_of_one_token"


def attend_one_token(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function for transformers' `AttentionInterface`.

    Heads that share keys stand as rows of one query, so keys and values are read once and never repeated.

    Args:
        module: the attention block.
        query: [B, H, 1, d].
        key, value: [B, H_kv, C, d].
        attention_mask: [B, 1, 1, C], added to the logits.
        scaling: of the logits; None: d^-0.5.
        kwargs: what other kernels are told.

    Returns:
        [B, 1, H, d], and None for the weights, which are never held.
    """
    batch, heads, _, size = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, size)
    attended = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return attended.reshape(batch, 1, heads, -1), None


AttentionInterface.register(NAME, attend_one_token)


class Slots:
    """Keys and values of all layers, written in place at one slot: all that a decoder layer asks of a cache."""

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor], slot: Tensor) -> None:
        self.keys, self.values, self.slot = keys, values, slot

    def update(self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Writes [B, H_kv, 1, d] and returns everything, [B, H_kv, C, d]."""
        self.keys[layer].index_copy_(2, self.slot, key)
        self.values[layer].index_copy_(2, self.slot, value)
        return self.keys[layer], self.values[layer]


class OneToken:
    """The decoder of a base, seen with the kernel above: weights are the base's own, and its config stays as it is."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = copy(backbone)
        self._backbone.model = view_with_kernel(backbone.model, backbone.text_config, NAME)

    def logits(
        self,
        input_ids: Tensor,
        start: Tensor,
        slot: Tensor,
        masks: Sequence[Tensor],
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        of_layer: Sequence[int],
    ) -> Tensor:
        """Logits behind one new token of each row, [B, 1, vocabulary].

        Args:
            input_ids: [B, 1].
            start: [B, 1] int64, rotary position of the first new token.
            slot: [1] int64, how many new tokens there were before; is counted on.
            masks: [B, 1, 1, C_k] each, 0 where a slot holds what may be seen and -inf elsewhere; the new token's slot
                becomes 0.
            keys, values: of each layer, [B, H_kv, C_k, d]; the new token's are written into `slot`.
            of_layer: each layer's place in `masks`.
        """
        backbone = self._backbone
        hidden = backbone.text_model.embed_tokens(input_ids)
        rotary = backbone.rotary(hidden, (start + slot).expand(backbone.num_position_axes, -1, -1))
        for mask in masks:
            mask.index_fill_(3, slot, 0.0)
        cache: Any = Slots(keys, values, slot)
        for index, number in enumerate(of_layer):
            hidden = backbone.layer(index, hidden, masks[number], rotary, cache)
        slot.add_(1)
        return backbone.logits(hidden)
