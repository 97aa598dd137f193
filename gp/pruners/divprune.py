"""DivPrune: the most diverse subset of visual tokens."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from gp.pruners.base import BEFORE_FIRST_LAYER, PruneView, RankingPruner
from gp.pruners.per_image import group_slices, picked_first

MAX_ENTRIES = 1 << 23  # similarities held at a time


class DivPrune(RankingPruner):
    """The most diverse subset.

    Greedy max-min diversity: each pick is the token farthest from all picks before it. Does not see the question.
    With D_ij = 1 - cos(v_i, v_j) over the embeddings that the LLM gets: first the token farthest from its nearest
    neighbour, then again and again argmax_j min over picks i of D_ij.

    Settings: the budget is the only one: int(budget * N) tokens; the published code rounds.

    Deviations: kept tokens keep their rotary positions, the published code renumbers them. Distances are computed in
    chunks and one pick at a time, so no N x N matrix is held. There is no published code for Qwen2.5-VL; its embeddings
    are those after the patch merger.

    Source: Alvar et al., "DivPrune", CVPR 2025, section 3.
    """

    name: ClassVar[str] = "divprune"
    paper = "2503.02175"
    stages = (BEFORE_FIRST_LAYER,)

    def scores(self, view: PruneView) -> Tensor:
        embeds = view.visual_hidden().float()
        groups = zip(group_slices(view), self.counts(view), strict=True)
        return torch.cat([picked_first(most_diverse(embeds[at], count), embeds[at].mean(-1)) for at, count in groups])


def most_diverse(embeds: Tensor, count: int) -> Tensor:
    """Indices [count] of the greedy max-min subset of [V, D], in the order of the picks."""
    unit = torch.nn.functional.normalize(embeds, dim=-1)
    picks, nearest = [], distance_to_nearest(unit)
    for number in range(min(count, len(unit))):
        pick = nearest.argmax()
        picks.append(pick)
        distance = 1 - unit @ unit[pick]
        nearest = distance if number == 0 else torch.minimum(nearest, distance)
        nearest = nearest.index_fill(0, pick, float("-inf"))
    return torch.stack(picks) if picks else torch.empty(0, dtype=torch.long, device=embeds.device)


def distance_to_nearest(unit: Tensor) -> Tensor:
    """1 - cosine to the most similar other token, [V], in chunks."""
    size = len(unit)
    rows = max(1, MAX_ENTRIES // max(size, 1))
    nearest = []
    for start in range(0, size, rows):
        similarity = unit[start : start + rows] @ unit.T
        similarity.diagonal(offset=start).fill_(float("-inf"))
        nearest.append(1 - similarity.amax(1))
    return torch.cat(nearest) if nearest else unit.new_empty(0)
