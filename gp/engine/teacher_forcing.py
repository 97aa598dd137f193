"""The forward pass of training: a prefix without gradients, then glimpse and answer tokens with gradients behind it.

Attention is causal and the LVLM frozen, so images and prompt cannot depend on the glimpse token. They run once under
`no_grad` into a KV cache; only the glimpse token and the answer run with gradients against it. Loss and gradients are
exactly those of the whole sequence under autograd, for the activation memory of a few tokens.

Only layers that a method brings along (a twig) see the prompt with gradients, and of the prompt no more than they need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from gp.backbones import Backbone
from gp.engine.compiled_suffix import CompiledSuffix
from gp.engine.suffix import Suffix
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
    compiled: CompiledSuffix | None = None,
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
        compiled: runs glimpse and answer as one graph, which holds no such bytes and runs nothing again; cannot
            normalise over the answer.

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
    attention = None
    if compiled is not None and not normalize_over_answer:
        attention = compiled.run(suffix, pruner, prompt, num_layers, cache)
    if attention is None:
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
