"""Relaxed accuracy: numbers read off a chart may be off by 5 %."""

from __future__ import annotations

import math

TOLERANCE = 0.05


def relaxed_accuracy(prediction: str, answer: str) -> float:
    """1 if both are numbers and the prediction is within 5 % of the answer, or the texts are the same; else 0.

    A percent sign divides by 100. Case does not count. An answer of 0 has no relative error: it must be met exactly.

    Source: Methani et al., "PlotQA", 2020; as ChartQA, Masry et al., 2022, section 5.1, uses it.

    >>> relaxed_accuracy("104", "100"), relaxed_accuracy("106", "100"), relaxed_accuracy("Blue", "blue")
    (1.0, 0.0, 1.0)
    """
    said, right = _number(prediction), _number(answer)
    if said is not None and right is not None:
        return float(abs(said - right) <= TOLERANCE * abs(right))
    return float(prediction.strip().lower() == answer.strip().lower())


def _number(text: str) -> float | None:
    text = text.strip()
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return value / 100 if text.endswith("%") else value
