"""Match of the kept tokens with the evidence: token-level scores over all samples, and recall per sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from gp.metrics.shares import mean_of_units, to_units


def mask_counts(keep_mask: Tensor, evidence_mask: Tensor) -> Tensor:
    """Tokens kept inside the evidence, kept outside it, and dropped inside it.

    Args:
        keep_mask: bool [N], True = kept.
        evidence_mask: bool [N], True = inside a box.

    Returns:
        int64 [3]: true positives, false positives, false negatives.

    Raises:
        ValueError: not bool, not flat, or of two lengths.
    """
    for name, mask in (("keep_mask", keep_mask), ("evidence_mask", evidence_mask)):
        if mask.dtype != torch.bool or mask.ndim != 1:
            raise ValueError(f"{name}: expected bool [N], got {mask.dtype} {list(mask.shape)}")
    if keep_mask.shape != evidence_mask.shape:
        raise ValueError(f"keep_mask has {len(keep_mask)} tokens, evidence_mask {len(evidence_mask)}: expected as many")
    both, only_kept, only_evidence = keep_mask & evidence_mask, keep_mask & ~evidence_mask, ~keep_mask & evidence_mask
    return torch.stack([both.sum(), only_kept.sum(), only_evidence.sum()])


def scores_from_counts(counts: Tensor) -> dict[str, Tensor]:
    """Precision TP / (TP + FP), recall TP / (TP + FN), F1 2 TP / (2 TP + FP + FN), IoU TP / (TP + FP + FN).

    Args:
        counts: int64 [3]: TP, FP, FN.

    Returns:
        `precision`, `recall`, `f1`, `iou`: float64 scalars in 0..1; 0 where the denominator is.
    """
    hit, false, missed = counts.double()
    return {
        "precision": _divide(hit, hit + false),
        "recall": _divide(hit, hit + missed),
        "f1": _divide(2 * hit, 2 * hit + false + missed),
        "iou": _divide(hit, hit + false + missed),
    }


class MaskScores(Metric):
    """Precision, recall, F1 and IoU of the kept tokens against the evidence, from counts over all tokens seen.

    Large regions weigh more than small ones; `EvidenceRecall` and `MeanMaskIoU` count each sample the same.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, **options):
        super().__init__(**options)
        self.add_state("counts", torch.zeros(3, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """int [n, 3] of `mask_counts`, of n samples; or [3], of one."""
        self.counts += _rows(counts, self.counts.device).sum(0)

    def compute(self) -> dict[str, Tensor]:
        """`precision`, `recall`, `f1`, `iou`; see `scores_from_counts`."""
        return scores_from_counts(self.counts)


class MeanOverSamples(Metric):
    """Mean over samples of a share of `mask_counts`; samples without evidence do not count."""

    full_state_update = False
    total: Tensor
    num_samples: Tensor

    def __init__(self, **options):
        super().__init__(**options)
        self.add_state("total", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("num_samples", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """int [n, 3] of `mask_counts`, of n samples; or [3], of one."""
        hit, false, missed = _rows(counts, self.total.device).unbind(1)
        has_evidence = hit + missed > 0
        self.total += (to_units(self.share(hit, false, missed)) * has_evidence).sum()
        self.num_samples += has_evidence.sum()

    def compute(self) -> Tensor:
        """float64 scalar in 0..1; 0 before the first sample with evidence."""
        return mean_of_units(self.total, self.num_samples)

    def share(self, hit: Tensor, false: Tensor, missed: Tensor) -> Tensor:
        """Float64 [n], in 0..1; int64 [n] tokens of each sample: kept evidence, other kept ones, dropped evidence."""
        raise NotImplementedError


class EvidenceRecall(MeanOverSamples):
    """Mean over samples of the share of their evidence tokens that were kept; samples without any do not count."""

    def share(self, hit: Tensor, false: Tensor, missed: Tensor) -> Tensor:
        return _divide(hit.double(), hit + missed)


class MeanMaskIoU(MeanOverSamples):
    """Mean over samples of the IoU of kept and evidence tokens; samples without evidence do not count.

    It is what referring segmentation calls mIoU (or gIoU), and `iou` of `MaskScores` is its cumulative IoU (cIoU), in
    which one answer that keeps a whole second object weighs as much as many small misses.
    """

    def share(self, hit: Tensor, false: Tensor, missed: Tensor) -> Tensor:
        return _divide(hit.double(), hit + false + missed)


def _rows(counts: Tensor, device: torch.device) -> Tensor:
    """int64 [n, 3]; ValueError for other shapes."""
    counts = torch.as_tensor(counts, dtype=torch.long, device=device)
    if counts.ndim not in (1, 2) or counts.shape[-1] != 3:
        raise ValueError(f"counts: expected [n, 3] or [3], got {list(counts.shape)}")
    return counts.reshape(-1, 3)


def _divide(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole without a branch on their values (no host sync); 0 where whole is 0."""
    return part / whole.clamp(min=1)
