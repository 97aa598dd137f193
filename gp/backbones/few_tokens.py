"""A few new tokens per row behind a prefix that has no gradients: the decoder as a function of tensors, differentiable.

What training asks of a decoder layer by layer, without anything that differs from one batch to the next but sizes and
values of tensors, so that it can be compiled as one graph, forward and backward. The attention kernel takes keys and
values in two parts, the prefix as it lies in its cache and the new tokens' own: they are never put together or repeated
for all heads, so the backward pass needs no copy of the prefix, and no layer has to run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from gp.backbones.attention import Rotary, read_attention
from gp.backbones.base import Backbone
from gp.backbones.views import view_with_kernel

NAME = "prefix_and_own"
Parts = tuple[Tensor, Tensor]  # of the prefix [B, H_kv, S, d], and of the new tokens [B, H_kv, Q, d]


def attend_to_parts(
    module: nn.Module,
    query: Tensor,
    key: Parts,
    value: Parts,
    attention_mask: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function for transformers' `AttentionInterface`: softmax in float32, as `eager` computes it.

    Args:
        module: the attention block.
        query: [B, H, Q, d].
        key, value: in two parts, as `Prefixed.update` returns them.
        attention_mask: [B, 1, Q, S + Q], added to the logits.
        scaling: of the logits; None: d^-0.5.
        kwargs: what other kernels are told.

    Returns:
        [B, Q, H, d], and None for the weights.
    """
    batch, heads, count, size = query.shape
    shared = key[0].shape[1]
    grouped = (query * (size**-0.5 if scaling is None else scaling)).reshape(batch, shared, -1, size)
    logits = torch.cat([grouped @ part.transpose(-1, -2) for part in key], dim=-1).view(batch, heads, count, -1)
    weights = (logits + attention_mask).softmax(-1, dtype=torch.float32).to(query.dtype)
    length = key[0].shape[2]
    weights = weights.view(batch, shared, -1, weights.shape[-1])
    attended = weights[..., :length] @ value[0] + weights[..., length:] @ value[1]
    return attended.view(batch, heads, count, -1).transpose(1, 2), None


AttentionInterface.register(NAME, attend_to_parts)


class Prefixed:
    """Keys and values of the prefix in all layers: all that a decoder layer asks of a cache, which stays as it is."""

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        self.keys, self.values = keys, values

    def update(self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Parts, Parts]:
        """Both parts of keys and of values."""
        return (self.keys[layer], key), (self.values[layer], value)


@dataclass(frozen=True)
class Reading:
    """What is read on the way through the layers; the same for all batches of a run.

    A bool per layer, not the numbers of some: torch.compile(dynamic=True) makes variables of numbers, and takes such a
    variable not to be among constants.

    Args:
        attention: whether the attention of the T-th new token, the glimpse's last, to the prefix is read there.
        state: whether the first T tokens behind the layer are returned.
        log_softmax: attention is normalised over the prefix and the T tokens; else raw logits.
    """

    attention: tuple[bool, ...]
    state: tuple[bool, ...]
    log_softmax: bool


class FewTokens:
    """The decoder of a base, seen with the kernel above: weights are the base's own, and its config stays as it is."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = copy(backbone)
        self._backbone.model = view_with_kernel(backbone.model, backbone.text_config, NAME)

    def run(
        self,
        reading: Reading,
        hidden: Tensor,
        visible: Tensor,
        position_ids: Tensor,
        vectors: Mapping[int, Tensor],
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Runs as many layers as there are keys.

        Args:
            reading: what is read.
            hidden: [B, Q, D], the new tokens, the glimpse's T first.
            visible: [B, S + Q] bool, False on padding.
            position_ids: [P, B, Q] int64.
            vectors: decoder layer -> the glimpse token's [T, D], added to the first T tokens before it, but for layer
                0, whose are in `hidden`.
            keys, values: the prefix's of each layer, [B, H_kv, S, d].

        Returns:
            Hidden states [B, Q, D], states that were asked for [B, T, D] each, attention that was asked for [B, H, S]
            each.
        """
        backbone, count = self._backbone, vectors[0].shape[0]
        mask = _additive(visible, hidden)
        rotary = backbone.rotary(hidden, position_ids)
        cache: Any = Prefixed(keys, values)
        states, rows = [], []
        for index, (prefix, reads, returns) in enumerate(zip(keys, reading.attention, reading.state)):
            if index in vectors and index > 0:
                hidden = torch.cat([hidden[:, :count] + vectors[index], hidden[:, count:]], dim=1)
            if reads:
                rows.append(self._row(index, reading.log_softmax, hidden[:, :count], visible, rotary, prefix))
            hidden = backbone.layer(index, hidden, mask, rotary, cache)
            if returns:
                states.append(hidden[:, :count])
        return hidden, states, rows

    def _row(
        self, index: int, log_softmax: bool, glimpse: Tensor, visible: Tensor, rotary: Rotary, keys: Tensor
    ) -> Tensor:
        """Attention of the last of the first T tokens [B, T, D], the input of a layer, to the prefix: [B, H, S]."""
        length, (cos, sin), count = keys.shape[2], rotary, glimpse.shape[1]
        query = self._backbone.query(index, glimpse[:, -1:], (cos[:, count - 1 : count], sin[:, count - 1 : count]))
        if log_softmax:  # only then the glimpse's own keys matter: they are normalised over
            own = self._backbone.key(index, glimpse, (cos[:, :count], sin[:, :count]))
            keys = torch.cat([keys, own], dim=2)
        row = read_attention(query, keys, visible[:, : keys.shape[2]], log_softmax)
        return row[:, :, 0, :length]


def _additive(visible: Tensor, hidden: Tensor) -> Tensor:
    """Mask [B, 1, Q, S + Q] of new tokens [B, Q, D] that see the prefix, themselves and the new ones before them."""
    count = hidden.shape[1]
    places = torch.arange(visible.shape[1], device=visible.device)
    own = torch.arange(count, device=visible.device) + (visible.shape[1] - count)
    allowed = visible[:, None, None] & (places <= own[:, None])
    lowest = torch.finfo(hidden.dtype).min
    return torch.zeros(allowed.shape, dtype=hidden.dtype, device=hidden.device).masked_fill(~allowed, lowest)
