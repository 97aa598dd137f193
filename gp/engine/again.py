"""A decoder layer that keeps nothing but its inputs for the backward pass, and runs again there.

Attention kernels keep the keys and values that they saw, and an MLP three tensors of its inner width: of a prompt of
thousands of tokens too much for all layers at once. What comes before is given and what is added is returned, so that
the second run changes no cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

KeysValues = tuple[Tensor, Tensor]  # [B, H_kv, S, d] each


class OneLayerCache:
    """Cache as one layer sees it: what came before, and behind it what the layer adds (`added`).

    Args:
        before: blocks of keys and values, in order.
        copies: rows that see each row of them.
    """

    added: KeysValues

    def __init__(self, before: Sequence[KeysValues], copies: int = 1) -> None:
        self._before = [[block.repeat_interleave(copies, 0) for block in pair] for pair in before]

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> KeysValues:
        """All that the layer sees."""
        self.added = keys, values
        if not self._before:
            return keys, values
        blocks = zip(*self._before, self.added)  # all keys, all values
        all_keys, all_values = (torch.cat(list(block), dim=2) for block in blocks)
        return all_keys, all_values


def run_again(
    layer: Callable[[Tensor, Any], Tensor], hidden: Tensor, before: Sequence[KeysValues] = (), copies: int = 1
) -> tuple[Tensor, KeysValues]:
    """Runs a layer; of its activations only `hidden` and `before` stay for the backward pass.

    Args:
        layer: called with hidden states and cache, once now and once in the backward pass.
        hidden: [B * copies, Q, D].
        before: blocks of keys and values [B, H_kv, S, d] that it sees before its own.
        copies: rows of `hidden` that share a row of them.

    Returns:
        Hidden states [B * copies, Q, D], and the keys and values of these tokens.
    """

    def once(hidden: Tensor, *flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cache = OneLayerCache(list(zip(flat[::2], flat[1::2])), copies)
        out = layer(hidden, cache)
        return out, *cache.added

    flat = [tensor for pair in before for tensor in pair]
    out, keys, values = checkpoint(once, hidden, *flat, use_reentrant=False, preserve_rng_state=False)
    return out, (keys, values)
