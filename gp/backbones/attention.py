"""Attention read from a decoder layer's own projections: works with every kernel, and no kernel returns weights."""

from __future__ import annotations

import torch
from torch import Tensor

Rotary = tuple[Tensor, Tensor]  # cosine and sine, each [B, S, d]


def rotate(states: Tensor, rotary: Rotary | None) -> Tensor:
    """Rotary embedding of [B, H, Q, d], pairs rotated by halves; None: unchanged."""
    if rotary is None:
        return states
    cos, sin = (x.unsqueeze(1).to(states.device) for x in rotary)
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin


def read_attention(query: Tensor, keys: Tensor, visible: Tensor | None, log_softmax: bool) -> Tensor:
    """The attention row of some queries over all cached keys, read from a layer's own projections.

    Args:
        query: [B, H, Q, d], rotated.
        keys: [B, H_kv, S, d], rotated, as in the cache.
        visible: [B, S] bool, keys that the queries may see; None: all, and raw logits need none.
        log_softmax: normalise over the visible keys; else the raw logits q.k / sqrt(d).

    Returns:
        [B, H, Q, S] in the model's dtype (log-softmax: float32).
    """
    batch, heads, rows, size = query.shape
    scaled = query * size**-0.5  # before they are multiplied: in float16 products may overflow where logits do not
    grouped = scaled.reshape(batch, keys.shape[1], -1, size)  # [B, H_kv, H / H_kv * Q, d]
    logits = (grouped @ keys.transpose(-1, -2)).view(batch, heads, rows, -1)
    if not log_softmax:
        return logits
    if visible is not None:
        logits = logits.masked_fill(~visible[:, None, None].to(logits.device), float("-inf"))
    return logits.float().log_softmax(-1)
