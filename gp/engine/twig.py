"""Attention read in a twig: prompt and glimpse run further than the base, on layers that the method brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gp.backbones import Backbone, Rotary, read_attention
from gp.backbones.twig import Twig
from gp.engine.again import OneLayerCache, run_again
from gp.types import Prompt


def read_twig(
    backbone: Backbone,
    twig: Twig,
    prompt: Prompt,
    vectors: Mapping[int, Tensor],
    read_layers: Sequence[int],
    log_softmax: bool,
) -> dict[int, Tensor]:
    """Runs prompt and glimpse through the twig; neither the prompt nor any cache changes.

    With gradients, its layers keep only their inputs, and run again in the backward pass.

    Args:
        backbone: adapter of the frozen model.
        twig: layers that begin behind the one that has run.
        prompt: hidden states behind that layer, the glimpse token's last.
        vectors: decoder layer -> the glimpse token's vectors [T, D], added before the copy of that layer, too.
        read_layers: those that have a copy are read.
        log_softmax: see `gp.backbones.read_attention`.

    Returns:
        Read layer -> attention [N, H] of the glimpse token to every visual token; -inf for dropped ones.
    """
    own = backbone.with_layers(twig.numbered())
    hidden = prompt.hidden.to(twig.dtype)
    cos, sin = backbone.rotary(hidden, prompt.position_ids)
    mask = backbone.causal_mask(hidden, prompt.padding_mask, None)
    found: dict[int, Tensor] = {}
    for index in twig.numbered():
        if index in vectors:
            count = vectors[index].shape[0]
            hidden = torch.cat([hidden[:, :-count], hidden[:, -count:] + vectors[index].to(hidden)], dim=1)
        here = replace(prompt, hidden=hidden)
        if index == twig.last:
            keys = own.key(index, hidden, (cos, sin))
        else:
            hidden, keys = _run(own, index, here, mask, (cos, sin))
        if index in read_layers:
            query = own.query(index, here.hidden[:, -1:], (cos[:, -1:], sin[:, -1:]))
            row = read_attention(query, keys, prompt.attention_mask, log_softmax)[:, :, 0]
            found[index] = prompt.gather_visual(row.transpose(1, 2), float("-inf"))
    return found


def _run(own: Backbone, index: int, prompt: Prompt, mask: Tensor | None, rotary: Rotary) -> tuple[Tensor, Tensor]:
    """Hidden states behind a layer, and its keys."""

    def layer(hidden: Tensor, cache: Any) -> Tensor:
        return own.run_layer(index, replace(prompt, hidden=hidden), mask, rotary, cache)

    if torch.is_grad_enabled():
        hidden, (keys, _) = run_again(layer, prompt.hidden)
        return hidden, keys
    cache = OneLayerCache([])
    hidden = layer(prompt.hidden, cache)
    return hidden, cache.added[0]
