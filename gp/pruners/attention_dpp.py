"""Attention DPP: a diverse subset of what the last prompt token attends to. This project's own training-free method."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from gp.backbones import Backbone
from gp.pruners.base import Pruner, PruneView, RankingPruner
from gp.pruners.dpp import EPSILON, greedy_map
from gp.pruners.per_image import group_slices, picked_first


class AttentionDPP(RankingPruner):
    """A diverse subset of what the last prompt token attends to (this project's own).

    Greedy MAP inference of a DPP: relevance is the LLM's own attention, similarity that of its hidden states.
    Attention alone picks the same spot again and again: neighbours of the best token are attended to as well, and say
    the same. With a_j = mean over heads of softmax(q_last K^T / sqrt(d))_j at layer `layer`, r = a / max a in each
    group that shares a budget, and unit hidden states f_i behind that layer: K_ij = r_i (f_i . f_j) r_j; then as in
    `gp.pruners.dpp`.

    Settings: the budget is the only usual one. Tokens are dropped after the same layer as `glimpse` does (the middle
    one if there is none), and earlier layers forget them, too.

    Args:
        layer: 0-based decoder layer that is read and after which tokens are dropped.

    Source: none. Relevance is FastV's, inference is CDPruner's, whose relevance compares embeddings before the LLM.
    """

    name: ClassVar[str] = "attention_dpp"
    log_softmax = True

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.stages = self.read_layers = (layer,)

    @classmethod
    def for_model(cls, backbone: Backbone, prune_layer: int, layer: int | None = None) -> Pruner:
        given = prune_layer if layer is None else layer
        return cls(given if given >= 0 else backbone.num_layers // 2 - 1)

    def scores(self, view: PruneView) -> Tensor:
        attention = view.attention[self.stages[0]].float().exp().mean(-1)
        unit = torch.nn.functional.normalize(view.visual_hidden().float(), dim=-1)
        ranked = []
        for place, count in zip(group_slices(view), self.counts(view), strict=True):
            relevance = attention[place]
            if len(relevance):
                relevance = relevance / relevance.max().clamp(min=EPSILON)
            ranked.append(picked_first(greedy_map(unit[place], relevance, count), relevance))
        return torch.cat(ranked)
