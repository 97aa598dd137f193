"""Bootstrap intervals against plain Python and against the binomial distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gp.eval import bootstrap
from gp.eval.bootstrap import RESAMPLES, accuracy_intervals, paired_differences

CORRECT = np.array([[True, False, True, True, False, True, True], [False, False, True, True, True, False, False]])


def percentile(values: list[float], share: float) -> float:
    """Linear between the two nearest values."""
    place = share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return sorted(values)[low] * (1 - (place - low)) + sorted(values)[high] * (place - low)


def test_against_plain_python():
    draws = np.random.default_rng(5).integers(7, size=(RESAMPLES, 7)).tolist()
    expected = []
    for row in CORRECT.tolist():
        accuracies = [sum(row[question] for question in draw) / 7 for draw in draws]
        expected.append([percentile(accuracies, 0.025), percentile(accuracies, 0.975)])
    assert accuracy_intervals(CORRECT, seed=5) == pytest.approx(np.array(expected))


def test_against_the_binomial_distribution():
    """The number of right answers in a resample of n questions is binomial with the observed accuracy."""
    size, share = 200, 0.7
    correct = np.arange(size)[None] < share * size
    pmf = [math.comb(size, k) * share**k * (1 - share) ** (size - k) for k in range(size + 1)]
    cdf = np.cumsum(pmf)
    exact = [np.searchsorted(cdf, tail) / size for tail in (0.025, 0.975)]
    assert accuracy_intervals(correct)[0] == pytest.approx(exact, abs=1.5 / size)


def test_all_methods_see_the_same_resamples():
    """Where one is right exactly when the other is wrong, the intervals mirror each other."""
    one, other = accuracy_intervals(np.stack([CORRECT[0], ~CORRECT[0]]), seed=3)
    assert other == pytest.approx(1 - one[::-1])
    assert accuracy_intervals(CORRECT[:1], seed=3)[0] == pytest.approx(one)  # whatever else is in the table


def test_seeded_and_not_dependent_on_chunks(monkeypatch):
    whole = accuracy_intervals(CORRECT, seed=1)
    monkeypatch.setattr(bootstrap, "CHUNK_ENTRIES", 7 * 300)
    assert (accuracy_intervals(CORRECT, seed=1) == whole).all()


def test_certain_answers_have_no_spread():
    assert accuracy_intervals(np.array([[True] * 4, [False] * 4])).tolist() == [[1, 1], [0, 0]]


SCORES = np.array([[1.0, 0.0, 1.0, 0.25, 1.0], [0.0, 0.0, 1.0, 0.5, 1.0], [1.0, 1.0, 1.0, 0.75, 1.0]])


def test_differences_against_plain_python():
    """Question by question, with the same draws: mean, percentiles, and the share on either side of 0."""
    draws = np.random.default_rng(5).integers(5, size=(RESAMPLES, 5)).tolist()
    found, intervals, p_values = paired_differences(SCORES, SCORES[1], seed=5)
    for row, mean, interval, p in zip(SCORES.tolist(), found, intervals, p_values, strict=True):
        gains = [one - other for one, other in zip(row, SCORES[1].tolist())]
        drawn = [sum(gains[question] for question in draw) / 5 for draw in draws]
        assert mean == pytest.approx(sum(gains) / 5)
        assert interval == pytest.approx([percentile(drawn, 0.025), percentile(drawn, 0.975)])
        sides = [sum(gain <= 0 for gain in drawn), sum(gain >= 0 for gain in drawn)]
        assert p == pytest.approx(min(1, 2 * (min(sides) + 1) / (RESAMPLES + 1)))
    assert (found[1], p_values[1]) == (0, 1) and intervals[1].tolist() == [0, 0]  # against itself


def trinomial(size: int, better: int, worse: int) -> np.ndarray:
    """Exact distribution of (better - worse) in a resample of `size` questions; entry k: k - size."""
    one = np.array([worse, size - better - worse, better]) / size
    whole = np.array([1.0])
    for _ in range(size):
        whole = np.convolve(whole, one)
    return whole


@pytest.mark.parametrize(("better", "worse"), [(12, 4), (3, 9), (5, 5), (1, 14), (0, 2)])
def test_differences_against_their_exact_distribution(better, worse):
    """Without drawing anything: each question is gained, lost or the same, and a resample has so many of each."""
    size, resamples = 120, 20_000
    reference = np.arange(size) < 60
    method = reference.copy()
    method[60 : 60 + better], method[:worse] = True, False
    (mean,), (interval,), (p,) = paired_differences(method[None], reference, seed=2, resamples=resamples)
    exact = trinomial(size, better, worse)
    cdf = exact.cumsum()
    assert mean == pytest.approx((better - worse) / size)
    ends = [(np.searchsorted(cdf, tail) - size) / size for tail in (0.025, 0.975)]
    assert interval == pytest.approx(ends, abs=1.01 / size)
    sides = cdf[size], exact[size:].sum()  # of 0 or less, of 0 or more
    assert p == pytest.approx(min(1, 2 * min(sides)), abs=0.02)


def test_pairs_tell_more_than_two_intervals():
    """One question lost in each twenty of hard ones: the intervals overlap, the difference is certain."""
    reference = np.arange(400) % 2 == 0
    method = reference & (np.arange(400) % 20 != 0)
    one, other = accuracy_intervals(np.stack([reference, method]))
    (mean,), ((low, high),), (p,) = paired_differences(method[None], reference)
    assert other[1] > one[0] and low < mean == -0.05 < high < 0 and p == pytest.approx(2 / (RESAMPLES + 1))


def test_differences_are_seeded_and_do_not_depend_on_chunks_or_other_rows(monkeypatch):
    whole = paired_differences(SCORES, SCORES[0], seed=1)
    alone = paired_differences(SCORES[2:], SCORES[0], seed=1)
    monkeypatch.setattr(bootstrap, "CHUNK_ENTRIES", 5 * 300)
    for one, same, last in zip(whole, paired_differences(SCORES, SCORES[0], seed=1), alone, strict=True):
        assert (one == same).all() and one[2:] == pytest.approx(last)
