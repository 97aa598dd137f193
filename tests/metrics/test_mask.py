"""Mask scores against torchmetrics' own binary metrics and against hand counts."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.classification import (
    binary_f1_score,
    binary_jaccard_index,
    binary_precision,
    binary_recall,
)

from gp.metrics import EvidenceRecall, MaskScores, MeanMaskIoU, mask_counts
from gp.metrics.mask import scores_from_counts


def random_masks(count: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 40, (count,), generator=generator).tolist()
    return [tuple(torch.rand(2, size, generator=generator) > 0.6) for size in sizes]


def test_counts_by_hand():
    keep = torch.tensor([True, True, False, False, True])
    evidence = torch.tensor([True, False, True, False, True])
    assert mask_counts(keep, evidence).tolist() == [2, 1, 1]
    scores = scores_from_counts(torch.tensor([2, 1, 1]))
    assert {name: float(score) for name, score in scores.items()} == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "iou": 0.5}
    )


def test_against_torchmetrics_on_everything_at_once():
    masks = random_masks(30)
    metric = MaskScores()
    for keep, evidence in masks:
        metric.update(mask_counts(keep, evidence))
    keep, evidence = (torch.cat(parts) for parts in zip(*masks))
    theirs = {
        "precision": binary_precision,
        "recall": binary_recall,
        "f1": binary_f1_score,
        "iou": binary_jaccard_index,
    }
    ours = metric.compute()
    assert set(ours) == set(theirs)
    for name, function in theirs.items():
        assert float(ours[name]) == pytest.approx(float(function(keep.int(), evidence.int())), abs=1e-6)


def test_evidence_recall_is_a_mean_over_samples():
    metric, shares = EvidenceRecall(), []
    for keep, evidence in random_masks(30):
        metric.update(mask_counts(keep, evidence))
        inside = [bool(k) for k, e in zip(keep, evidence) if e]
        shares += [sum(inside) / len(inside)] if inside else []
    assert len(shares) < 30  # some have no evidence
    assert float(metric.compute()) == pytest.approx(sum(shares) / len(shares), abs=1e-12)


def test_mean_iou_is_a_mean_of_torchmetrics_own():
    metric, shares = MeanMaskIoU(), []
    for keep, evidence in random_masks(30):
        metric.update(mask_counts(keep, evidence))
        shares += [float(binary_jaccard_index(keep.int(), evidence.int()))] if evidence.any() else []
    assert len(shares) < 30  # what is kept where there is no evidence does not count
    assert float(metric.compute()) == pytest.approx(sum(shares) / len(shares), abs=1e-6)


def test_nothing_kept_and_nothing_to_keep():
    nothing, something = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    metric, recall = MaskScores(), EvidenceRecall()
    for keep, evidence in ((nothing, nothing), (nothing, something)):
        metric.update(mask_counts(keep, evidence))
        recall.update(mask_counts(keep, evidence))
    assert all(float(score) == 0 for score in metric.compute().values())
    assert float(recall.compute()) == 0 and int(recall.num_samples) == 1


@pytest.mark.parametrize(
    ("keep", "evidence", "message"),
    [
        (torch.ones(3), torch.ones(3).bool(), r"keep_mask: expected bool \[N\], got torch.float32 \[3\]"),
        (torch.ones(1, 3).bool(), torch.ones(1, 3).bool(), r"got torch.bool \[1, 3\]"),
        (torch.ones(3).bool(), torch.ones(4).bool(), "3 tokens, evidence_mask 4"),
    ],
)
def test_other_tensors_are_refused(keep, evidence, message):
    with pytest.raises(ValueError, match=message):
        mask_counts(keep, evidence)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (1, 1, 3)])
def test_other_counts_are_refused(shape):
    for metric in (MaskScores(), EvidenceRecall(), MeanMaskIoU()):
        with pytest.raises(ValueError, match=r"counts: expected \[n, 3\] or \[3\], got"):
            metric.update(torch.zeros(shape, dtype=torch.long))


def test_samples_one_by_one_or_together():
    masks = random_masks(20)
    for make in (MaskScores, EvidenceRecall, MeanMaskIoU):
        together, single = make(), make()
        together.update(torch.stack([mask_counts(*pair) for pair in masks]))
        for pair in reversed(masks):
            single.update(mask_counts(*pair))
        assert together.compute() == single.compute()
