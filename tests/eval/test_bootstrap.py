"""Bootstrap intervals against plain Python and against the binomial distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gp.eval import bootstrap
from gp.eval.bootstrap import RESAMPLES, accuracy_intervals

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
