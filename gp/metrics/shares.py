"""Means of shares that do not depend on the order of samples, to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor
from torchmetrics import Metric

UNITS = 2**40  # of a share of 1: sums of 8 million samples fit into int64


def to_units(shares: Tensor) -> Tensor:
    """Shares in whole numbers: sums of floats would differ in the last bit with the order of samples and ranks.

    Args:
        shares: float [...], 0..1.

    Returns:
        int64 [...] in 0..`UNITS`, off by half a unit at most.
    """
    return (shares.double() * UNITS).round().long()


def mean_of_units(total: Tensor, count: Tensor) -> Tensor:
    """Sum of units (int64 [...]) and number of samples (int64 scalar) -> mean share, float64 [...]; 0 for none."""
    return total.double() / UNITS / count.clamp(min=1)


class MeanShares(Metric):
    """Means over samples of several shares.

    Args:
        names: of the shares.
        most: greatest share that is not an error; None: any.
    """

    full_state_update = False
    total: Tensor
    num_samples: Tensor

    def __init__(self, names: Sequence[str], most: float | None = 1.0, **options):
        super().__init__(**options)
        self.names, self.most = tuple(names), most
        self.add_state("total", torch.zeros(len(self.names), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("num_samples", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, shares: Tensor) -> None:
        """float [n, names], 0..`most`, of n samples; ValueError for another shape or other values."""
        shares = torch.as_tensor(shares, dtype=torch.double, device=self.total.device)
        if shares.ndim != 2 or shares.shape[1] != len(self.names):
            raise ValueError(f"shares: expected [n, {len(self.names)}], got {list(shares.shape)}")
        if not bool(((shares >= 0) & (shares <= (inf if self.most is None else self.most))).all()):
            bound = "0 or more" if self.most is None else f"0..{self.most:g}"
            raise ValueError(f"shares: expected {bound}, got {shares.tolist()}")
        self.total += to_units(shares).sum(0)
        self.num_samples += len(shares)

    def compute(self) -> dict[str, Tensor]:
        """Name -> float64 scalar; 0 before the first sample."""
        return dict(zip(self.names, mean_of_units(self.total, self.num_samples), strict=True))


class CropShares(MeanShares):
    """Means over questions of a method that looks closer; without any question, nothing.

    `zoomed`: whether a crop was taken. `crops_per_question`. `crop_recall`: share of the evidence's visual tokens, of
    the images as they came, that lies in crops. `encoded_ratio`: visual tokens that left the vision tower, of copies
    and crops / those of the images as they came; the tower's patches have the same ratio.
    """

    def __init__(self, **options):
        super().__init__(("zoomed", "crops_per_question", "crop_recall", "encoded_ratio"), most=None, **options)

    def update(self, crops: Tensor) -> None:
        """float [n, 4]: of each question the four in that order."""
        super().update(crops)

    def compute(self) -> dict[str, Tensor]:
        return super().compute() if int(self.num_samples) > 0 else {}


def crop_shares(num_crops: int, in_crops: int, evidence: int, encoded: int, visual: int) -> tuple[float, ...]:
    """What `CropShares` is fed of one question.

    Args:
        num_crops: that were taken.
        in_crops, evidence: visual tokens of its evidence, in crops and in all.
        encoded, visual: visual tokens that left the tower, and those of the images as they came.
    """
    return float(num_crops > 0), float(num_crops), in_crops / max(evidence, 1), encoded / max(visual, 1)
