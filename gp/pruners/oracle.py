"""Keeps the tokens inside the given evidence boxes: the upper line, and the door for masks of one's own."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from gp.backbones import Backbone
from gp.pruners.base import Pruner, PruneView, flat_evidence


class OraclePruner(Pruner):
    """Scores are the logits of the evidence masks (bool, or probabilities in 0..1) that the caller passes.

    Args:
        prune_layer: decoder layer after which tokens are dropped, -1 for before the first.
    """

    name: ClassVar[str] = "oracle"

    def __init__(self, prune_layer: int = -1) -> None:
        super().__init__()
        self.stages = (prune_layer,)

    @classmethod
    def for_model(cls, backbone: Backbone, prune_layer: int) -> Pruner:
        return cls(prune_layer)

    def scores(self, view: PruneView) -> Tensor:
        return flat_evidence(view).logit()
