"""Scorers of answers by name, and the torchmetric that averages one of them over all samples of all processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from gp.metrics.anls import anls
from gp.metrics.answers import exact_match
from gp.metrics.choice import choice
from gp.metrics.containment import containment
from gp.metrics.relaxed import relaxed_accuracy
from gp.metrics.shares import MeanShares
from gp.metrics.vqa import vqa_accuracy

SCORERS: dict[str, Callable[[str, str], float]] = {
    "exact_match": lambda prediction, answer: float(exact_match(prediction, answer)),
    "anls": anls,
    "vqa_accuracy": vqa_accuracy,
    "relaxed_accuracy": relaxed_accuracy,
    "choice": choice,
    "containment": containment,
}


class AnswerScorers(MeanShares):
    """Means over samples of some scorers, in whole units: the same to the last bit for any batches and processes.

    Args:
        names: keys of `SCORERS`; the order of the results. None at all is allowed.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, names: Sequence[str], **options):
        if unknown := [name for name in names if name not in SCORERS]:
            raise ValueError(f"unknown scorer {unknown[0]!r}, expected some of {', '.join(SCORERS)}")
        super().__init__(names, **options)

    def update(self, predictions: Sequence[str], answers: Sequence[str]) -> None:
        """Texts of n samples; ValueError for lists of different lengths."""
        if len(predictions) != len(answers) or isinstance(predictions, str):
            raise ValueError(f"expected as many predictions as answers, got {len(predictions)} and {len(answers)}")
        rows = [[SCORERS[name](said, right) for name in self.names] for said, right in zip(predictions, answers)]
        super().update(torch.tensor(rows, dtype=torch.double).reshape(len(rows), len(self.names)))
