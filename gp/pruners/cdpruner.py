"""CDPruner: a determinantal point process over similarity, conditioned on the question."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from gp.pruners.base import BEFORE_FIRST_LAYER, PruneView, RankingPruner
from gp.pruners.dpp import EPSILON, greedy_map
from gp.pruners.per_image import group_slices, picked_first


class CDPruner(RankingPruner):
    """A determinantal point process, conditioned on the question.

    Greedy MAP inference of a DPP whose kernel weighs the similarity of tokens by their relevance to the question.
    With unit embeddings f_i: S = f f^T, relevance x_i = mean over question tokens of cos(v_i, t), scaled to
    r = (x - min + 1e-6) / (max - min) in each group that shares a budget, kernel K_ij = r_i S_ij r_j.
    Again and again, up to the budget, the token with the largest conditional variance joins, and the variances of the
    others shrink by what it explains.

    Settings: the budget is the only usual one.

    Args:
        negate: turns the relevance round. The published code does so for CLIP features, where the authors observed that
            the least similar patches are the relevant ones.

    Deviations: the published relevance compares CLIP's image and text embeddings, which only LLaVA's tower has a text
    side for, and which is not part of the LVLM; ours compares what the LLM gets, visual embeddings and the embeddings
    of the tokens after the last image, so it works for every family and needs no second model (as the public port to
    Qwen does). Minimum and maximum are of the group, not of the whole batch. The kernel is formed column by column.

    Source: Zhang et al., "Beyond Attention or Similarity", NeurIPS 2025, section 3; greedy MAP: Chen et al., 2018.
    """

    name: ClassVar[str] = "cdpruner"
    paper = "2506.10967"
    stages = (BEFORE_FIRST_LAYER,)

    def __init__(self, negate: bool = False) -> None:
        super().__init__()
        self.negate = negate

    def scores(self, view: PruneView) -> Tensor:
        embeds = torch.nn.functional.normalize(view.visual_hidden().float(), dim=-1)
        relevance = question_similarity(view, embeds) * (-1 if self.negate else 1)
        groups = zip(group_slices(view), self.counts(view), strict=True)
        picks = [(at, greedy_map(embeds[at], scale(relevance[at]), count)) for at, count in groups]
        return torch.cat([picked_first(order, relevance[at]) for at, order in picks])


def question_similarity(view: PruneView, embeds: Tensor) -> Tensor:
    """Mean cosine of every visual token to the question tokens of its prompt, [N].

    The question is what stands behind the last image, or all text if nothing does.

    Args:
        view: before the first layer.
        embeds: unit embeddings of the visual tokens, [N, D].
    """
    prompt = view.prompt
    behind = prompt.is_visual.flip(1).cumsum(1).flip(1) == 0
    text = prompt.attention_mask & ~prompt.is_visual
    question = torch.where((text & behind).any(1, keepdim=True), text & behind, text)
    unit = torch.nn.functional.normalize(prompt.hidden.float(), dim=-1) * question.unsqueeze(-1)
    mean = unit.sum(1) / question.sum(1, keepdim=True).clamp(min=1)  # [B, D]; the mean cosine is linear in it
    of_prompt = [row.expand(size, -1) for row, size in zip(mean, view.layout.prompt_sizes)]
    return (embeds * torch.cat(of_prompt)).sum(-1)


def scale(relevance: Tensor) -> Tensor:
    """Scales relevance to (0, 1] within one group; constant relevance becomes all ones."""
    if not len(relevance):
        return relevance
    low, high = relevance.min(), relevance.max()
    return torch.where(high > low, (relevance - low + EPSILON) / (high - low).clamp(min=EPSILON), 1.0)
