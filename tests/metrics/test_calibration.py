"""Calibration against torchmetrics' own error, which keeps every probability."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from gp.metrics import Calibration, calibration_counts


def draw(size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(size, generator=generator) ** 3
    return probabilities, torch.rand(size, generator=generator) < probabilities.sqrt()


def test_error_against_torchmetrics():
    probabilities, evidence = draw(5000)
    metric = Calibration()
    for start in range(0, 5000, 700):
        metric.update(calibration_counts(probabilities[start : start + 700], evidence[start : start + 700]))
    expected = binary_calibration_error(probabilities, evidence.long(), n_bins=10, norm="l1")
    assert float(metric.compute()["ece"]) == pytest.approx(float(expected), abs=1e-5) and expected > 0.1


def test_curve_by_hand():
    probabilities = torch.tensor([0.05, 0.15, 0.1, 1.0, 0.95, 0.9], dtype=torch.double)
    evidence = torch.tensor([False, True, False, True, True, False])
    metric = Calibration()
    metric.update(calibration_counts(probabilities, evidence)[None])
    found = metric.compute()
    assert found["tokens"].tolist() == [1, 2, 0, 0, 0, 0, 0, 0, 0, 3]
    assert found["predicted"].tolist() == pytest.approx([0.05, 0.125, 0, 0, 0, 0, 0, 0, 0, 0.95])
    assert found["observed"].tolist() == pytest.approx([0, 0.5, 0, 0, 0, 0, 0, 0, 0, 2 / 3])
    error = (1 * 0.05 + 2 * 0.375 + 3 * (0.95 - 2 / 3)) / 6
    assert float(found["ece"]) == pytest.approx(error)


def test_before_the_first_token_and_perfect():
    metric = Calibration()
    assert metric.compute()["ece"] == 0
    metric = Calibration()
    metric.update(calibration_counts(torch.tensor([0.0, 1.0]), torch.tensor([False, True])))
    assert metric.compute()["ece"] == 0


@pytest.mark.parametrize(
    ("probabilities", "evidence"),
    [([0.5], [[True]]), ([0.5, 0.5], [True]), ([1.5], [True]), ([float("nan")], [True]), ([0.5], [1])],
)
def test_mistakes(probabilities, evidence):
    with pytest.raises(ValueError, match="expected probabilities"):
        calibration_counts(torch.tensor(probabilities), torch.tensor(evidence))


def test_counts_of_another_shape():
    with pytest.raises(ValueError, match=r"calibration: expected \[n, 10, 3\]"):
        Calibration().update(torch.zeros(10, 2))
