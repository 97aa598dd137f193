"""Glimpse and answer tokens behind a prefix without gradients: the only part of the sequence that has them.

Their layers are checkpointed unless memory allows otherwise: attention kernels keep the keys and values that they saw,
which here would be a copy of the whole prefix for every layer (repeated for all heads, under `sdpa` with a mask).
Running so few tokens again costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from gp.backbones import Backbone, Rotary, read_attention
from gp.pruners import GlimpsePruner
from gp.types import Prompt


class PrefixCache:
    """Cache as a layer of the suffix sees it: the prefix, and behind it its own keys and values, kept by nobody.

    So a layer can run twice, once forward and once again for the backward pass.
    """

    def __init__(self, prefix: DynamicCache) -> None:
        self._prefix = prefix

    def update(self, keys: Tensor, values: Tensor, index: int, *args, **kwargs) -> tuple[Tensor, Tensor]:
        layer: Any = self._prefix.layers[index]
        return torch.cat([layer.keys, keys], dim=2), torch.cat([layer.values, values], dim=2)


@dataclass
class Suffix:
    """Glimpse and answer tokens, the only part of the sequence with gradients. Q = T + L.

    Args:
        hidden: [B, Q, D].
        attention_mask: [B, S + Q] bool, prefix and suffix.
        has_padding: whether it may have a False.
        position_ids: [P, B, Q] int64, behind the last prompt position.
        vectors: decoder layer -> the glimpse token's vectors [T, D].
        glimpsed: [B, T, D], the glimpse token behind the prune layer, once it has run there.
    """

    hidden: Tensor
    attention_mask: Tensor
    has_padding: bool
    position_ids: Tensor
    vectors: dict[int, Tensor]
    glimpsed: Tensor | None = None

    @classmethod
    def start(
        cls,
        backbone: Backbone,
        pruner: GlimpsePruner,
        prompt: Prompt,
        answer_ids: Tensor | None,
        answer_mask: Tensor | None,
    ) -> Suffix:
        vectors = {i: v.to(prompt.hidden.dtype) for i, v in pruner.tokens().items()}
        batch, count = prompt.hidden.shape[0], vectors[0].shape[0]
        parts = [vectors[0].expand(batch, -1, -1)]
        masks = [prompt.attention_mask, prompt.attention_mask.new_ones(batch, count)]
        if answer_ids is not None:
            parts.append(backbone.text_model.embed_tokens(answer_ids).detach())
            masks.append(answer_mask.bool())
        hidden = torch.cat(parts, dim=1)
        # the host does not know if answers differ in length, so they count as padded; their mask is built in any case
        has_padding = prompt.has_padding or answer_ids is not None
        return cls(hidden, torch.cat(masks, dim=1), has_padding, prompt.next_positions(hidden.shape[1]), vectors)

    def behind(self, prompt: Prompt) -> Prompt:
        """The prompt with the glimpse token behind it, both behind the prune layer."""
        assert self.glimpsed is not None  # `run` has been called
        batch, count = self.glimpsed.shape[:2]
        return replace(
            prompt,
            hidden=torch.cat([prompt.hidden, self.glimpsed], dim=1),
            attention_mask=self.attention_mask[:, : self.glimpse_end(prompt)],
            position_ids=torch.cat([prompt.position_ids, self.position_ids[:, :, :count]], dim=2),
            visual_id=torch.cat([prompt.visual_id, prompt.visual_id.new_full((batch, count), -1)], dim=1),
            lengths=[length + count for length in prompt.lengths],
        )

    def glimpse_end(self, prompt: Prompt) -> int:
        """Length of the sequence up to and with the glimpse token: what it sees."""
        return prompt.attention_mask.shape[1] + self.vectors[0].shape[0]

    def run(
        self,
        backbone: Backbone,
        pruner: GlimpsePruner,
        prompt: Prompt,
        num_layers: int,
        cache: DynamicCache,
        seen: int,
        recompute: bool = True,
    ) -> dict[int, Tensor]:
        """Runs the layers against the prefix's cache, which stays as it is; read layer -> glimpse attention [N, H].

        Args:
            seen: keys over which the glimpse attention is normalised, from the first on.
            recompute: whether each layer keeps only its input, and runs again in the backward pass.
        """
        count = self.vectors[0].shape[0]
        mask = backbone.causal_mask(self.hidden, self.attention_mask if self.has_padding else None, cache)
        rotary = backbone.rotary(self.hidden, self.position_ids)
        behind = PrefixCache(cache)
        attention = {}
        for index in range(num_layers):
            self.hidden, mask, rotary = backbone.reach(index, self.hidden, mask, rotary)
            if index in self.vectors and index > 0:
                glimpse = self.hidden[:, :count] + self.vectors[index].to(self.hidden.device)
                self.hidden = torch.cat([glimpse, self.hidden[:, count:]], dim=1)
            layer_input = self.hidden
            inputs: Any = (index, layer_input, mask, rotary, behind)
            if recompute:
                self.hidden = checkpoint(backbone.layer, *inputs, use_reentrant=False, preserve_rng_state=False)
            else:
                self.hidden = backbone.layer(*inputs)
            if index == pruner.prune_layer:
                self.glimpsed = self.hidden[:, :count]
            if index in pruner.read_layers and index <= pruner.prune_layer:
                attention[index] = self._read(backbone, pruner, prompt, index, layer_input, rotary, cache, seen)
        return attention

    def _read(self, backbone, pruner, prompt, index, layer_input, rotary, cache, seen) -> Tensor:
        last = self.vectors[0].shape[0] - 1
        query = backbone.query(index, layer_input[:, last : last + 1], _rows(rotary, last, last + 1))
        keys = cache.layers[index].keys
        length = keys.shape[2]
        if pruner.log_softmax:  # only then the suffix's own keys matter: they are normalised over
            own = backbone.key(index, layer_input[:, : seen - length], _rows(rotary, 0, seen - length))
            keys = torch.cat([keys, own], dim=2)
        visible = self.attention_mask[:, : keys.shape[2]]
        row = read_attention(query, keys, visible, pruner.log_softmax)[:, :, 0]
        return prompt.gather_visual(row[:, :, :length].transpose(1, 2), float("-inf"))


def _rows(rotary: Rotary, start: int, end: int) -> Rotary:
    cos, sin = rotary
    return cos[:, start:end], sin[:, start:end]
