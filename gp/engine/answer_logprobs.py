"""Log-probabilities of answers behind pruned prompts, with gradients: what reinforcement learning differentiates.

The answers are rows behind one shared prefix, which is the one that `gp.engine.prefill` hands to `generate`: dropped
tokens are missing where they were missing when the answer was drawn. So the log-probabilities are those of the draw.

The last token of a prompt predicts the first one of an answer. It runs apart from the rest of the prompt, so that it
has gradients also where the prompt has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from gp.backbones import Backbone, Rotary, on_host
from gp.engine.again import KeysValues, run_again
from gp.engine.run import Run
from gp.pruners import OraclePruner
from gp.types import ImageFeatures, Prompt, PruneOptions

AS_GIVEN = PruneOptions(min_kept=0)  # keeps what a mask says


@dataclass
class PrunedPrefix:
    """Pruned prompts up to their last token. R: positions that are left, without the last one.

    Args:
        layers: keys and values of each decoder layer, [B, H_kv, R, d] each.
        attention_mask: [B, R] bool, False on padding (on the left).
        last_layers: keys and values of the last token, [B, H_kv, 1, d] each, in the layers up to the pruning.
        last_hidden: [B, 1, D], of the last token behind these layers.
        last_position: [P, B, 1] int64, its rotary position.
        next_position: [B] int64, rotary position of an answer's first token.
    """

    layers: list[KeysValues]
    attention_mask: Tensor
    last_layers: list[KeysValues]
    last_hidden: Tensor
    last_position: Tensor
    next_position: Tensor


@dataclass
class AnswerLogProbs:
    """What the model thinks of given answers.

    Args:
        log_probs: [B * copies, L] float32, of each token; 0 on padding; differentiable.
        entropy: [B * copies, L] float32, of the distribution that the token was drawn from, in nats; detached.
    """

    log_probs: Tensor
    entropy: Tensor


def pruned_prefix(
    backbone: Backbone,
    inputs: Mapping[str, Tensor],
    keep_masks: Sequence[Tensor],
    prune_layer: int,
    images: ImageFeatures | None = None,
    gradients: bool = False,
) -> PrunedPrefix:
    """Runs prompts through the model and drops visual tokens behind one layer.

    Args:
        backbone: adapter of the model.
        inputs: left-padded prompts, as the processor returned them.
        keep_masks: one bool [h, w] per image.
        prune_layer: the last decoder layer that sees all tokens.
        images: of `Backbone.see`, if the images were seen already.
        gradients: whether they flow through the whole prompt; if not, only through its last token, which costs little.

    Raises:
        ValueError: prompts without images, or that end with one; masks that do not fit the images.
    """
    prompt = backbone.embed(on_host(inputs), images=images)
    if prompt.layout.num_tokens == 0:
        raise ValueError("these prompts hold no image: there is nothing to prune")
    head, last = _part(prompt)
    with torch.set_grad_enabled(gradients and torch.is_grad_enabled()):
        run = Run.start(backbone, OraclePruner(prune_layer), head, AS_GIVEN, keep_masks)
        run.advance(prune_layer, prune=False)
    last_hidden, last_layers = _run_last(backbone, last, run)
    with torch.set_grad_enabled(gradients and torch.is_grad_enabled()):
        run.prune(prune_layer)
        run.advance(backbone.num_layers - 1)
    return PrunedPrefix(
        layers=_pairs(run.cache),
        attention_mask=run.prompt.attention_mask,
        last_layers=last_layers,
        last_hidden=last_hidden,
        last_position=last.position_ids,
        next_position=prompt.next_positions(1)[-1, :, 0],
    )


def answer_logprobs(
    backbone: Backbone, prefix: PrunedPrefix, answer_ids: Tensor, answer_mask: Tensor, temperature: float = 1.0
) -> AnswerLogProbs:
    """Log-probabilities of answers, as many to each prompt, whose rows stand behind each other.

    Args:
        backbone: adapter of the model.
        prefix: of B prompts.
        answer_ids: [B * copies, L] int64, right padded, the token that ends a turn included.
        answer_mask: [B * copies, L] bool, False on padding.
        temperature: that the answers were drawn at: logits are divided by it.
    """
    copies, count = len(answer_ids) // len(prefix.attention_mask), answer_ids.shape[1] - 1
    hidden = backbone.text_model.embed_tokens(answer_ids[:, :-1])
    steps = torch.arange(count, device=answer_ids.device)
    positions = (prefix.next_position.repeat_interleave(copies)[:, None] + steps).expand(
        len(prefix.last_position), -1, -1
    )
    mask = prefix.attention_mask.repeat_interleave(copies, 0)
    mask = torch.cat([mask, mask.new_ones(len(mask), 1), answer_mask[:, :-1].bool()], dim=1)
    depth = len(prefix.last_layers)
    if count:
        blocks = [[layer, last] for layer, last in zip(prefix.layers, prefix.last_layers)]
        hidden = _run_block(backbone, hidden, positions, mask, blocks, 0, copies)
    hidden = torch.cat([prefix.last_hidden.repeat_interleave(copies, 0), hidden], dim=1)
    positions = torch.cat([prefix.last_position.repeat_interleave(copies, 1), positions], dim=2)
    blocks = [[layer] for layer in prefix.layers[depth:]]
    hidden = _run_block(backbone, hidden, positions, mask, blocks, depth, copies)
    return _of_tokens(backbone.logits(hidden).float() / temperature, answer_ids, answer_mask)


def _of_tokens(logits: Tensor, ids: Tensor, mask: Tensor) -> AnswerLogProbs:
    chosen = -torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
    with torch.no_grad():
        spread = logits.detach().log_softmax(-1)
        entropy = -(spread.exp() * spread).sum(-1)
    return AnswerLogProbs(chosen.masked_fill(~mask, 0.0), entropy.masked_fill(~mask, 0.0))


def _part(prompt: Prompt) -> tuple[Prompt, Prompt]:
    """All tokens but the last one of each row, and that one."""

    def piece(where: slice, lengths: list[int]) -> Prompt:
        return replace(
            prompt,
            hidden=prompt.hidden[:, where],
            attention_mask=prompt.attention_mask[:, where],
            position_ids=prompt.position_ids[:, :, where],
            visual_id=prompt.visual_id[:, where],
            lengths=lengths,
        )

    last = piece(slice(-1, None), [1] * len(prompt.hidden))
    if bool((last.visual_id >= 0).any()):
        raise ValueError("a prompt ends with an image: nothing stands before the answer that could predict it")
    return piece(slice(None, -1), [length - 1 for length in prompt.lengths]), last


def _run_last(backbone: Backbone, last: Prompt, run: Run) -> tuple[Tensor, list[KeysValues]]:
    """The last token in the layers that have run, before anything is dropped; the run's cache stays as it is."""
    mask = torch.cat([run.prompt.attention_mask, last.attention_mask], dim=1)
    hidden, added, layers = last.hidden, [], _pairs(run.cache)
    kernel_mask = _kernel_mask(backbone, hidden, mask, layers[0]) if run.prompt.has_padding else None
    rotary = backbone.rotary(hidden, last.position_ids)
    for index, before in enumerate(layers):
        hidden, kernel_mask, rotary = backbone.reach(index, hidden, kernel_mask, rotary)

        def layer(hidden: Tensor, cache: Any, at: int = index, mask: Any = kernel_mask, by: Rotary = rotary) -> Tensor:
            return backbone.layer(at, hidden, mask, by, cache)

        hidden, own = run_again(layer, hidden, [before])
        added.append(own)
    return hidden, added


def _run_block(
    backbone: Backbone,
    hidden: Tensor,
    position_ids: Tensor,
    mask: Tensor,
    blocks: Sequence[Sequence[KeysValues]],
    first: int,
    copies: int,
) -> Tensor:
    """Runs new tokens through layers from `first` on, each behind the blocks of keys and values that it has."""
    rotary = backbone.rotary(hidden, position_ids)
    keys, values = (torch.cat([pair[part][..., :1] for pair in blocks[0]], dim=2) for part in (0, 1))
    kernel_mask = _kernel_mask(backbone, hidden, mask, (keys, values))
    for index, before in enumerate(blocks, first):
        hidden, kernel_mask, rotary = backbone.reach(index, hidden, kernel_mask, rotary)

        def layer(hidden: Tensor, cache: Any, at: int = index, mask: Any = kernel_mask, by: Rotary = rotary) -> Tensor:
            return backbone.layer(at, hidden, mask, by, cache)

        hidden, _ = run_again(layer, hidden, before, copies)
    return hidden


def _kernel_mask(backbone: Backbone, hidden: Tensor, mask: Tensor, seen: KeysValues) -> Tensor | None:
    """The mask [B, cached + Q] in the kernel's form, for new tokens behind a layer that holds `seen`."""
    one_layer = DynamicCache()
    one_layer.update(seen[0][..., :1].detach(), seen[1][..., :1].detach(), 0)  # only their number counts
    return backbone.causal_mask(hidden, mask, one_layer)


def _pairs(cache: DynamicCache) -> list[KeysValues]:
    layers: list[Any] = cache.layers  # of the kind that holds keys and values
    return [(layer.keys, layer.values) for layer in layers if layer.is_initialized]
