"""Containment: whether a long answer says the right one anywhere."""

from __future__ import annotations

from gp.metrics.answers import normalize_answer


def containment(prediction: str, answer: str) -> float:
    """1 if the answer's words stand in the prediction, whole, in order and side by side, both normalised; else 0.

    An answer without words is contained only in a prediction without words.

    >>> containment("It is a red bus.", "Red bus"), containment("It is 45.", "4")
    (1.0, 0.0)
    """
    said, right = normalize_answer(prediction), normalize_answer(answer)
    return float(f" {right} " in f" {said} " if right else not said)
