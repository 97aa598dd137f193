"""Share of visual tokens that survive: mean and distribution of kept / visual."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from gp.metrics.shares import mean_of_units, to_units

NUM_BINS = 20


def ratio_bins(num_kept: Tensor, num_visual: Tensor) -> Tensor:
    """The bin of each sample's kept ratio: bin i holds [i / 20, (i + 1) / 20), the last one 0.95 and more.

    Args:
        num_kept: int [n].
        num_visual: int [n], > 0.

    Returns:
        int64 [n] in 0..19.
    """
    return (num_kept * NUM_BINS // num_visual).clamp(max=NUM_BINS - 1)


class KeepRatio(Metric):
    """Kept ratio over samples: `keep_ratio` (the mean), `keep_ratio_tokens` (weighted by their visual tokens), and the
    distribution.
    """

    full_state_update = False
    total_ratio: Tensor
    num_kept: Tensor
    num_visual: Tensor
    histogram: Tensor

    def __init__(self, **options):
        super().__init__(**options)
        self.add_state("total_ratio", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("num_kept", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("num_visual", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("histogram", torch.zeros(NUM_BINS, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, num_kept: Tensor, num_visual: Tensor) -> None:
        """Counts of n samples.

        Args:
            num_kept: int [n], kept visual tokens; of a method that sees parts of an image again it may be more than
                `num_visual`.
            num_visual: int [n], visual tokens before pruning, > 0.

        Raises:
            ValueError: other shapes, or counts that no pruning can give.
        """
        num_kept, num_visual = (torch.as_tensor(n, device=self.histogram.device) for n in (num_kept, num_visual))
        if num_kept.shape != num_visual.shape or num_kept.ndim != 1:
            shapes = f"{list(num_kept.shape)} and {list(num_visual.shape)}"
            raise ValueError(f"num_kept and num_visual: expected [n] each, got {shapes}")
        if bool(((num_kept < 0) | (num_visual < 1)).any()):
            counts = f"num_kept {num_kept.tolist()} and num_visual {num_visual.tolist()}"
            raise ValueError(f"expected num_kept >= 0 and num_visual >= 1, got {counts}")
        self.total_ratio += to_units(num_kept.double() / num_visual).sum()
        self.num_kept += num_kept.sum()
        self.num_visual += num_visual.sum()
        self.histogram += torch.bincount(ratio_bins(num_kept, num_visual), minlength=NUM_BINS)

    def compute(self) -> dict[str, Tensor]:
        """`keep_ratio` and `keep_ratio_tokens` (float64 scalars, 0 before the first sample), `histogram`
        (int64 [20], samples per bin, see `ratio_bins`) and `num_samples` (int64 scalar).
        """
        num_samples = self.histogram.sum()
        return {
            "keep_ratio": mean_of_units(self.total_ratio, num_samples),
            "keep_ratio_tokens": self.num_kept.double() / self.num_visual.clamp(min=1),
            "histogram": self.histogram.clone(),
            "num_samples": num_samples,
        }
