"""Attention that each patch receives in a vision block, without ever holding a K x K matrix.

Training-free methods rank visual tokens by the vision tower's own attention. Attention kernels do not return weights,
so the block's input is recorded and queries and keys are computed once more, which costs a fraction of the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from gp.backbones.sharded import run_part
from gp.types import VisionAttention

MAX_ENTRIES = 1 << 23  # attention weights held at a time: 32 MiB in float32


def received_attention(query: Tensor, keys: Tensor, max_entries: int = MAX_ENTRIES) -> Tensor:
    """Column sums of softmax(q k^T / sqrt(d)), mean over heads.

    Args:
        query: [H, Q, d], rotated if the block rotates.
        keys: [H, K, d].
        max_entries: attention weights held at a time; the queries are taken in chunks of as many rows as fit.

    Returns:
        [K] float32; adds up to Q.
    """
    heads, num_queries, size = query.shape
    rows = max(1, max_entries // keys.shape[1])
    total = torch.zeros(keys.shape[1], dtype=torch.float32, device=keys.device)
    for head in range(heads):
        to_keys = keys[head].transpose(0, 1)
        for start in range(0, num_queries, rows):
            logits = query[head, start : start + rows] @ to_keys * size**-0.5
            total += logits.float().softmax(-1).sum(0)
    return total / heads


def fused_attention(attn: Any, args: tuple, kwargs: dict[str, Any], patches_per_token: int) -> VisionAttention:
    """Attention of a Qwen-style vision block, in the order of its tokens.

    Args:
        attn: has one projection `qkv` and rotates queries and keys.
        args, kwargs: of its call: hidden states [K, C], `cu_seqlens`, `position_embeddings` (cos, sin: [K, d]).
        patches_per_token: consecutive patches that merge into a visual token.
    """
    hidden = args[0] if args else kwargs["hidden_states"]
    projected = run_part(attn.qkv, hidden).unflatten(-1, (3, attn.num_heads, -1)).permute(1, 2, 0, 3)  # [3, H, K, d]
    cos, sin = (part.float().to(projected.device) for part in kwargs["position_embeddings"])
    query, keys = (_rotate(states.float(), cos, sin) for states in projected[:2])
    return token_attention(query, keys, kwargs["cu_seqlens"].tolist(), patches_per_token)


def token_attention(query: Tensor, keys: Tensor, ends: Sequence[int], patches_per_token: int) -> VisionAttention:
    """Attention between the patches of each image, summed up per visual token.

    Args:
        query, keys: [H, K, d] float32, rotated, patches of all images behind one another.
        ends: 0 and the number of patches up to each image's end.
        patches_per_token: consecutive patches that merge into a visual token.
    """
    received = [received_attention(query[:, a:b], keys[:, a:b]) for a, b in pairwise(ends)]
    return VisionAttention(
        torch.cat(received).unflatten(0, (-1, patches_per_token)).mean(1),
        keys.mean(0).unflatten(0, (-1, patches_per_token)).mean(1),
    )


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin
