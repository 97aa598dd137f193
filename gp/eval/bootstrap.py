"""Confidence intervals of accuracies: what they would have been on other questions of the same kind."""

from __future__ import annotations

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
    num_questions = correct.shape[1]
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK_ENTRIES // num_questions)
    accuracies = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(num_questions, size=(min(rows, resamples - start), num_questions))
        accuracies.append(_times_drawn(drawn) @ correct.T.astype(np.float64) / num_questions)
    tail = (1 - LEVEL) / 2
    return np.quantile(np.concatenate(accuracies), [tail, 1 - tail], axis=0).T


def _times_drawn(drawn: np.ndarray) -> np.ndarray:
    """Counts how often each question is in each resample: numbers of questions [R, n] -> [R, n] float64."""
    count, size = drawn.shape
    slots = drawn + size * np.arange(count)[:, None]
    return np.bincount(slots.ravel(), minlength=count * size).reshape(count, size).astype(np.float64)
