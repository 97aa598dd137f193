"""Confidence intervals of scores, and of differences between methods: what they would have been on other questions of
the same kind.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
CHUNK_ENTRIES = 2_000_000  # draws held at once, 16 MB of them


def accuracy_intervals(correct: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Percentile bootstrap over questions; every method sees the same resampled questions.

    Args:
        correct: [methods, questions] bool, at least one question.
        seed: of the draws; the same gives the same intervals.
        resamples: questions are drawn with replacement so many times.

    Returns:
        [methods, 2] float64, low and high end in 0..1.

    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.
    """
    return _percentiles(_resampled_means(correct, seed, resamples))


def paired_differences(
    scores: np.ndarray, reference: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paired bootstrap over questions: how much better than a reference each method is, and whether that is chance.

    A resample draws questions, and takes of each the score of the method and that of the reference: what makes a
    question hard for both cancels out, so that a difference may be certain where the two intervals overlap.

    Args:
        scores: [methods, questions] in 0..1, at least one question.
        reference: [questions], of the row that all are compared with, for the same questions.
        seed: of the draws, those of `accuracy_intervals`.
        resamples: see there.

    Returns:
        Mean of method - reference, [methods] float64; its 95 % percentile interval, [methods, 2]; and p, [methods]:
        twice the share of resamples on the less likely side of 0, with 0 itself on both sides, and one resample more
        that counts against the difference. So p is at least 2 / (resamples + 1), and 1 where nothing differs; below
        0.05 it says what an interval without 0 says.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 15; Koehn, "Statistical
    Significance Tests for Machine Translation Evaluation", 2004.
    """
    gains = scores.astype(np.float64) - reference.astype(np.float64)
    drawn = _resampled_means(gains, seed, resamples)
    rounded = drawn.round(12)  # sums of floats: a resample without a difference is exactly 0
    worse, better = ((side.sum(0) + 1) / (resamples + 1) for side in (rounded <= 0, rounded >= 0))
    return gains.mean(1), _percentiles(drawn), np.minimum(2 * np.minimum(worse, better), 1.0)


def _percentiles(means: np.ndarray) -> np.ndarray:
    """[resamples, methods] -> [methods, 2], the middle `LEVEL` of them."""
    tail = (1 - LEVEL) / 2
    return np.quantile(means, [tail, 1 - tail], axis=0).T


def _resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means over resampled questions, the same ones for all methods: [methods, questions] -> [resamples, methods]."""
    num_questions = values.shape[1]
    times = _draws(num_questions, seed, resamples)
    return np.concatenate([part @ values.T.astype(np.float64) / num_questions for part in times])


def _draws(num_questions: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each question is in each resample, some resamples at a time: [R, questions] float64."""
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK_ENTRIES // num_questions)
    for start in range(0, resamples, rows):
        yield _times_drawn(rng.integers(num_questions, size=(min(rows, resamples - start), num_questions)))


def _times_drawn(drawn: np.ndarray) -> np.ndarray:
    """Counts how often each question is in each resample: numbers of questions [R, n] -> [R, n] float64."""
    count, size = drawn.shape
    slots = drawn + size * np.arange(count)[:, None]
    return np.bincount(slots.ravel(), minlength=count * size).reshape(count, size).astype(np.float64)
