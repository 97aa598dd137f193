"""Peak attention: a token stays if any head of any layer so far looks at it. This project's own baseline."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from gp.backbones import Backbone
from gp.pruners.base import Pruner, PruneView, RankingPruner
from gp.pruners.per_image import group_slices


class PeakAttention(RankingPruner):
    """Ranks tokens by the strongest attention that the last prompt token gives them in any head of any layer read.

    Few heads retrieve what the question asks for, and the mean over heads drowns them in the others. So each head's
    attention is normalised over the visual tokens of the prompt, which makes heads comparable that mostly look at text,
    and score_j = max over layers and heads of softmax over visual tokens (q_last k_j / sqrt(d)).

    Settings: tokens are dropped after the same layer as `glimpse` does (the middle one if there is none).

    Args:
        layer: 0-based decoder layer after which tokens are dropped; all layers up to it are read.

    Source: none; it differs from FastV in the maximum over heads and layers, and in the normalisation.
    """

    name: ClassVar[str] = "peak_attention"

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.stages = (layer,)
        self.read_layers = tuple(range(layer + 1))

    @classmethod
    def for_model(cls, backbone: Backbone, prune_layer: int, layer: int | None = None) -> Pruner:
        given = prune_layer if layer is None else layer
        return cls(given if given >= 0 else backbone.num_layers // 2 - 1)

    def scores(self, view: PruneView) -> Tensor:
        logits = torch.cat([view.attention[layer] for layer in self.read_layers], dim=-1).float()
        return torch.cat([logits[place].softmax(0).amax(-1) for place in group_slices(view)])
