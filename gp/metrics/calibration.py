"""Calibration of predicted probabilities: are of the tokens that are called 70 % evidence 70 % evidence?"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

NUM_BINS = 10
PARTS = 10**6  # of a probability of 1: sums of whole numbers do not depend on their order


def calibration_counts(probabilities: Tensor, evidence: Tensor) -> Tensor:
    """Counts tokens by their predicted probability; bin i holds [i / 10, (i + 1) / 10), the last one also 1.

    Args:
        probabilities: float [N], 0..1.
        evidence: bool [N], True = inside a box.

    Returns:
        int64 [10, 3], of each bin: tokens, those that are evidence, and the sum of their probabilities in millionths.

    Raises:
        ValueError: other shapes, or values that are no probabilities.
    """
    if probabilities.shape != evidence.shape or probabilities.ndim != 1 or evidence.dtype != torch.bool:
        got = f"{list(probabilities.shape)} and {evidence.dtype} {list(evidence.shape)}"
        raise ValueError(f"expected probabilities [N] and evidence bool [N], got {got}")
    if not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        raise ValueError(f"expected probabilities in 0..1, got {probabilities.tolist()}")
    exact = probabilities.double()
    bins = (exact * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    values = torch.stack([torch.ones_like(bins), evidence.long(), (exact * PARTS).round().long()], dim=1)  # [N, 3]
    return torch.zeros(NUM_BINS, 3, dtype=torch.long, device=bins.device).index_add_(0, bins, values)


class Calibration(Metric):
    """Reliability curve and expected calibration error (ECE) of predicted probabilities.

    The ECE is the mean over tokens of the distance, within a token's bin, between the mean probability and the share of
    evidence. 0 is perfect.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, **options):
        super().__init__(**options)
        self.add_state("counts", torch.zeros(NUM_BINS, 3, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, calibration: Tensor) -> None:
        """int [n, 10, 3] of `calibration_counts`, of n samples; or [10, 3], of one."""
        counts = torch.as_tensor(calibration, dtype=torch.long, device=self.counts.device)
        if counts.ndim not in (2, 3) or counts.shape[-2:] != (NUM_BINS, 3):
            raise ValueError(f"calibration: expected [n, {NUM_BINS}, 3] or [{NUM_BINS}, 3], got {list(counts.shape)}")
        self.counts += counts.reshape(-1, NUM_BINS, 3).sum(0)

    def compute(self) -> dict[str, Tensor]:
        """`ece` (float64 scalar in 0..1, 0 before the first token); of each bin `tokens` (int64 [10]), `predicted` and
        `observed` (float64 [10]: mean probability, and share of evidence; 0 where there is no token).
        """
        tokens, evidence, parts = self.counts.unbind(1)
        total = parts.double() / PARTS
        return {
            "ece": (evidence - total).abs().sum() / tokens.sum().clamp(min=1),
            "tokens": tokens.clone(),
            "predicted": total / tokens.clamp(min=1),
            "observed": evidence.double() / tokens.clamp(min=1),
        }
