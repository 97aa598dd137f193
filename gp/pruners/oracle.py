"""Keeps the tokens inside the given evidence boxes: the upper line, and the door for masks of one's own."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from gp.pruners.base import AtPruneLayer, PruneView, flat_evidence


class OraclePruner(AtPruneLayer):
    """The ground-truth evidence boxes.

    Scores are the logits of the evidence masks (bool, or probabilities in 0..1) that the caller passes.
    """

    name: ClassVar[str] = "oracle"
    infinite_scores = True
    needs_hidden = False

    def scores(self, view: PruneView) -> Tensor:
        return flat_evidence(view).logit()
