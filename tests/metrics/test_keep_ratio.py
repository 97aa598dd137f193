"""Kept ratio: means and distribution."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from gp.metrics import KeepRatio
from gp.metrics.keep_ratio import NUM_BINS, ratio_bins


def test_means_and_histogram_by_hand():
    metric = KeepRatio()
    metric.update(torch.tensor([1, 64]), torch.tensor([4, 64]))
    metric.update(torch.tensor([0]), torch.tensor([32]))
    scores = metric.compute()
    assert float(scores["keep_ratio"]) == pytest.approx(1.25 / 3)
    assert float(scores["keep_ratio_tokens"]) == pytest.approx(65 / 100)
    assert int(scores["num_samples"]) == 3
    histogram = scores["histogram"].tolist()
    assert len(histogram) == NUM_BINS and sum(histogram) == 3
    assert (histogram[0], histogram[5], histogram[19]) == (1, 1, 1)


def test_bins_are_exact_at_their_edges():
    for visual in (7, 20, 60, 64, 1000):
        kept = torch.arange(visual + 1)
        expected = [min(int(Fraction(k, visual) * NUM_BINS), NUM_BINS - 1) for k in range(visual + 1)]
        assert ratio_bins(kept, torch.full_like(kept, visual)).tolist() == expected


def test_before_the_first_sample():
    metric = KeepRatio()
    metric.update(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    assert float(metric.compute()["keep_ratio"]) == 0 and int(metric.compute()["num_samples"]) == 0


def test_result_is_not_the_state():
    metric = KeepRatio()
    metric.update(torch.tensor([1]), torch.tensor([4]))
    histogram = metric.compute()["histogram"]
    metric.update(torch.tensor([1]), torch.tensor([4]))
    assert int(histogram.sum()) == 1


@pytest.mark.parametrize(("kept", "visual"), [([-1], [4]), ([0], [0]), ([1, 2], [4]), ([[1]], [[4]])])
def test_impossible_counts_are_refused(kept, visual):
    with pytest.raises(ValueError, match="num_kept"):
        KeepRatio().update(torch.tensor(kept), torch.tensor(visual))


def test_what_is_seen_again_may_be_more_than_there_was():
    """A copy and a crop of `zoom` together."""
    metric = KeepRatio()
    metric.update(torch.tensor([5]), torch.tensor([4]))
    assert float(metric.compute()["keep_ratio"]) == 1.25 and int(metric.compute()["histogram"][-1]) == 1
