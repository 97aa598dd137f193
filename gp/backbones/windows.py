"""Attention within many windows at once, for vision towers without FlashAttention.

transformers calls a vision tower's `sdpa` once per window: 7,000 calls for an image of 4,096 visual tokens, and a GPU
that waits for the next one. FlashAttention takes all windows in one call. What stands here takes that call and runs
windows of equal length as a batch.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from gp.backbones.views import view_with_kernel

NAME = "sdpa_called_like_flash_attention"  # transformers hands over all windows at once if "flash" is in the name


def attend_in_windows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    cu_seq_lens_q: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function for transformers' `AttentionInterface`.

    Args:
        module: the attention block.
        query, key, value: [1, H, K, d].
        attention_mask: None, the only one that vision towers have.
        cu_seq_lens_q: [windows + 1] int, where windows start and end, best on the host; equal ones side by side
            become one batch.
        scaling: of the logits; None: d^-0.5.
        dropout: probability.
        kwargs: the same windows for the keys, and their greatest length.

    Returns:
        [1, K, H, d], and None for the weights, which are never held.
    """
    lengths = cu_seq_lens_q.diff().tolist()
    runs = [(length, len(list(run))) for length, run in groupby(lengths)]
    parts = zip(*(states[0].split([length * count for length, count in runs], dim=1) for states in (query, key, value)))
    out = []
    for (length, count), part in zip(runs, parts):
        q, k, v = (states.unflatten(1, (count, length)).transpose(0, 1) for states in part)  # [count, H, length, d]
        attended = scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        out.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(out).unsqueeze(0), None


AttentionInterface.register(NAME, attend_in_windows)


def batched_view(tower: nn.Module) -> nn.Module:
    """The tower itself, or where its kernel is `sdpa` a view on it whose attention blocks take the above instead.

    It is made for each call, so that it follows whatever happens to the tower.
    """
    if tower.config._attn_implementation != "sdpa":
        return tower
    return view_with_kernel(tower, tower.config, NAME)


def side_by_side(order: Tensor, ends: Tensor, image_ends: Tensor) -> tuple[Tensor, Tensor]:
    """Puts windows of equal size side by side within each image, for which their order does not matter.

    Args:
        order: [N] int64, visual tokens window by window.
        ends: [windows + 1], where windows start and end among them, in any unit.
        image_ends: [images], where images end, in the same unit.

    Returns:
        `order` and `ends` of the windows sorted by image and size, the largest first.
    """
    sizes = ends.diff()
    image = torch.searchsorted(image_ends.to(ends), ends[:-1], right=True)
    by_size = (image * (sizes.max() + 1) - sizes).argsort(stable=True)
    place = by_size.argsort()  # of each window
    unit = int(ends[-1]) // len(order)
    tokens = place.repeat_interleave(sizes // unit).argsort(stable=True)
    return order[tokens], torch.cat([ends[:1], sizes[by_size].cumsum(0).to(ends)])
