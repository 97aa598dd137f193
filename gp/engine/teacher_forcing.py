"""The forward pass of training: a prefix without gradients, then glimpse and answer tokens with gradients behind it.

Attention is causal and the LVLM frozen, so images and prompt cannot depend on the glimpse token. They run once under
`no_grad` into a KV cache; only the glimpse token and the answer run with gradients against it. Loss and gradients are
exactly those of the whole sequence under autograd, for the activation memory of a few tokens.

Only layers that a method brings along (a twig) see the prompt with gradients, and of the prompt no more than they need.

The few tokens' layers are checkpointed: attention kernels keep the keys and values that they saw, which here would be
a copy of the whole prefix for every layer (repeated for all heads, under `sdpa` with a mask). Running so few tokens
again costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from gp.backbones import Backbone, Rotary, read_attention
from gp.engine.twig import read_twig
from gp.pruners import GlimpsePruner, PruneView
from gp.types import Prompt, PruneOptions, VisualLayout


@dataclass
class TeacherForced:
    """Scores and answer logits that the losses need.

    Args:
        importance_logits: one [N] float32 per output head of the VIP; the last decides.
        answer_logits: [B, L, vocabulary], row j predicts answer token j; None if the answer was not run.
        layout: the images of the batch.
    """

    importance_logits: list[Tensor]
    answer_logits: Tensor | None
    layout: VisualLayout


def teacher_forced(
    backbone: Backbone,
    pruner: GlimpsePruner,
    inputs: Mapping[str, Tensor],
    answer_ids: Tensor | None = None,
    answer_mask: Tensor | None = None,
    normalize_over_answer: bool = False,
    recompute: bool = True,
) -> TeacherForced:
    """Glimpse scores and answer logits of a batch, differentiable in the glimpse token and the VIP only.

    The glimpse token stands between the prompt and the first answer token, which it predicts; nothing is pruned.
    Without an answer, layers after the prune layer do not run.

    Args:
        backbone: adapter of the frozen model.
        pruner: the trained parts.
        inputs: left-padded prompts up to and with the assistant header, as the processor returned them.
        answer_ids: [B, L] int64, right padded.
        answer_mask: [B, L] bool, False on padding.
        normalize_over_answer: only for log-softmax features: normalise over the answer's keys too, which the glimpse
            token does not see. The original trains so (a constant per head that inference does not have); for parity.
        recompute: whether the layers of glimpse and answer run again in the backward pass; else `kept_bytes` are held
            until then.

    Raises:
        ValueError: a batch without images.
    """
    twig = pruner.own_layers()
    num_layers = backbone.num_layers if answer_ids is not None else min(max(pruner.read_layers), pruner.prune_layer) + 1
    cache = DynamicCache(config=backbone.text_config)
    prompt = run_prefix(backbone, inputs, pruner.taps, num_layers, cache, None if twig is None else pruner.prune_layer)
    if prompt.layout.num_tokens == 0:
        raise ValueError("this batch holds no image: there is nothing to glimpse at")
    suffix = Suffix.start(backbone, pruner, prompt, answer_ids, answer_mask)
    seen = suffix.attention_mask.shape[1] if normalize_over_answer else suffix.glimpse_end(prompt)
    attention = suffix.run(backbone, pruner, prompt, num_layers, cache, seen, recompute)
    if twig is not None:
        glimpsed = suffix.behind(prompt)
        attention |= read_twig(backbone, twig, glimpsed, suffix.vectors, pruner.read_layers, pruner.log_softmax)
    view = PruneView(pruner.prune_layer, num_layers, prompt, PruneOptions(), alive=torch.empty(0), attention=attention)
    scores = pruner.all_scores(view)
    if answer_ids is None:
        return TeacherForced(scores, None, prompt.layout)
    predicting = suffix.hidden[:, pruner.glimpse_token.num_tokens - 1 : -1]
    return TeacherForced(scores, backbone.logits(predicting), prompt.layout)


def kept_bytes(backbone: Backbone, rows: int, length: int) -> int:
    """Bytes of the keys and values that a suffix's layers hold until the backward pass, unless they run again.

    Args:
        rows: of the batch.
        length: of the sequences, with glimpse and answer.
    """
    config, size = backbone.text_config, backbone.head_size
    width = size * config.num_key_value_heads
    if not str(config._attn_implementation).startswith("flash") and config.num_key_value_heads < backbone.num_heads:
        width += size * backbone.num_heads  # repeated for all heads, beside the joined ones
    return 2 * backbone.num_layers * rows * length * width * backbone.dtype.itemsize


@torch.no_grad()
def run_prefix(
    backbone: Backbone,
    inputs: Mapping[str, Tensor],
    taps: Sequence[int],
    num_layers: int,
    cache: DynamicCache,
    wanted: int | None = None,
) -> Prompt:
    """Keys and values of images and prompt in the first `num_layers` decoder layers, of which the last does not run.

    Args:
        wanted: the layer behind which the prompt's hidden states are returned; then it runs in any case. None: nobody
            asks for them.
    """
    prompt = backbone.embed(inputs, taps)
    mask = backbone.causal_mask(prompt.hidden, prompt.padding_mask, None)
    rotary = backbone.rotary(prompt.hidden, prompt.position_ids)
    seen = None
    for index in range(num_layers):
        prompt.hidden, mask, rotary = backbone.reach(index, prompt.hidden, mask, rotary)
        if index == num_layers - 1 and index != wanted:
            backbone.remember(index, prompt.hidden, rotary, cache)
            break
        prompt.hidden = backbone.run_layer(index, prompt, mask, rotary, cache)
        seen = prompt.hidden if index == wanted else seen
    if seen is not None:
        prompt.hidden = seen
    return prompt


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
