"""The other way to train a glimpse: prompt, glimpse and answer as one sequence, all of it under autograd.

An independent reference for `gp.engine.teacher_forcing` (same loss, same gradients), whose speed it is compared with.
Nothing is shared with it but the embedding of the prompt: no cache, an explicit mask, positions of the whole
sequence from the model's own function, and attention rows from keys that are projected again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gp.backbones import Backbone, on_host
from gp.engine.teacher_forcing import TeacherForced
from gp.pruners import GlimpsePruner, PruneView
from gp.types import Prompt, PruneOptions

TEXT_TOKEN = 1  # any id that stands for no image: holds the glimpse's place while positions are computed


def whole_sequence(
    backbone: Backbone,
    pruner: GlimpsePruner,
    inputs: Mapping[str, Tensor],
    answer_ids: Tensor,
    answer_mask: Tensor,
    checkpointed: bool = False,
) -> TeacherForced:
    """Runs what `gp.engine.teacher_forcing.teacher_forced` does, with gradients through all S + T + L tokens.

    Works with the attention kernels `eager` and `sdpa`. `checkpointed`: only the inputs of the layers are kept for the
    backward pass, which runs each layer again.
    """
    prompt = backbone.embed(inputs, pruner.taps)
    vectors = {i: v.to(prompt.hidden.dtype) for i, v in pruner.tokens().items()}
    batch, length, _ = prompt.hidden.shape
    count = vectors[0].shape[0]
    answers = backbone.text_model.embed_tokens(answer_ids)
    hidden = torch.cat([prompt.hidden, vectors[0].expand(batch, -1, -1), answers], dim=1)
    seen = torch.cat([prompt.attention_mask, prompt.attention_mask.new_ones(batch, count), answer_mask.bool()], dim=1)
    rotary = backbone.rotary(hidden, _positions(backbone, inputs, answer_ids, seen, count))
    mask = full_causal_mask(seen, hidden.dtype)

    at = length + count - 1  # the glimpse token that is read
    attention: dict[int, Tensor] = {}

    def run(layers: Mapping[int, nn.Module], hidden: Tensor, last: int | None = None) -> dict[int, Tensor]:
        """Hidden states behind each of some layers, by number; of `last` only the attention is wanted."""
        behind = {}
        for index, layer in layers.items():
            if index in vectors and index > 0:
                hidden = hidden + _spread(vectors[index], hidden, slice(length, length + count))
            if index in pruner.read_layers and index not in attention:
                attention[index] = _attention_row(layer, hidden, rotary, at, seen, prompt, pruner.log_softmax)
            if index == last:
                break
            forward = partial(layer, attention_mask=mask, position_embeddings=rotary)
            hidden = checkpoint(forward, hidden, use_reentrant=False) if checkpointed else forward(hidden)
            if index in prompt.deepstack:
                added = torch.zeros_like(hidden)
                added[:, :length][prompt.visual_id >= 0] = prompt.deepstack[index].to(hidden.dtype)
                hidden = hidden + added
            behind[index] = hidden
        return behind

    base = dict(enumerate(backbone.text_model.layers))
    early = {index: layer for index, layer in base.items() if index <= pruner.prune_layer}
    behind = run(early, hidden)
    if (twig := pruner.own_layers()) is not None:
        run(twig.numbered(), behind[pruner.prune_layer], twig.last)
    late = {index: layer for index, layer in base.items() if index > pruner.prune_layer}
    hidden = (behind | run(late, behind[pruner.prune_layer]))[backbone.num_layers - 1]
    num_layers = backbone.num_layers
    view = PruneView(pruner.prune_layer, num_layers, prompt, PruneOptions(), alive=torch.empty(0), attention=attention)
    return TeacherForced(pruner.all_scores(view), backbone.logits(hidden[:, at:-1]), prompt.layout)


def _spread(vectors: Tensor, hidden: Tensor, places: slice) -> Tensor:
    """Zeros [B, L, D] but for the vectors [T, D] at some places."""
    spread = torch.zeros_like(hidden)
    spread[:, places] = vectors
    return spread


def full_causal_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, L] of visible tokens -> additive [B, 1, L, L]; padding sees itself, so that no row is empty."""
    length = seen.shape[1]
    allowed = torch.ones(length, length, dtype=torch.bool, device=seen.device).tril() & seen[:, None, None, :]
    allowed = allowed | torch.eye(length, dtype=torch.bool, device=seen.device)
    return torch.zeros(allowed.shape, dtype=dtype, device=seen.device).masked_fill(~allowed, torch.finfo(dtype).min)


def _positions(
    backbone: Backbone, inputs: Mapping[str, Tensor], answer_ids: Tensor, seen: Tensor, count: int
) -> Tensor:
    """Rotary positions [P, B, L] of the whole sequence, the glimpse token counted as a word of text."""
    inputs = on_host(inputs)
    prompt_ids = inputs["input_ids"]
    ids = torch.cat([prompt_ids, torch.full((len(prompt_ids), count), TEXT_TOKEN), answer_ids.cpu()], dim=1)
    return backbone.positions({**inputs, "input_ids": ids}, seen.long().cpu()).to(backbone.device)


def _attention_row(layer, hidden, rotary, at: int, seen: Tensor, prompt: Prompt, log_softmax: bool) -> Tensor:
    """Attention of position `at` to every visual token, [N, A], from queries and keys of the whole sequence."""
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    query_norm, key_norm = (getattr(attention, name, nn.Identity()) for name in ("q_norm", "k_norm"))
    query = _rotated(attention.q_proj(normed), query_norm, attention.head_dim, rotary)
    key = _rotated(attention.k_proj(normed), key_norm, attention.head_dim, rotary)
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    row = torch.einsum("bad,bakd->bak", query[:, :, at], key) / attention.head_dim**0.5
    if log_softmax:
        visible = seen.clone()
        visible[:, at + 1 :] = False
        row = row.float().masked_fill(~visible[:, None], float("-inf")).log_softmax(-1)
    is_visual = prompt.visual_id >= 0
    return row[:, :, : is_visual.shape[1]].transpose(1, 2)[is_visual]


def _rotated(projected: Tensor, norm: nn.Module, head_dim: int, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """[B, L, heads * d] -> [B, heads, L, d], normalised where the family does that, then rotated by halves."""
    x = norm(projected.unflatten(-1, (-1, head_dim))).transpose(1, 2)
    cos, sin = (r.unsqueeze(1) for r in rotary)
    half = head_dim // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * cos + turned * sin
