"""A threshold with a promise: how often pruned answers are the un-pruned ones, bounded from below.

Agreement is a yes or no for each question, so its number is binomial and the bound of Clopper and Pearson is exact.
Thresholds are tried from the lowest, which keeps most tokens, and the first that misses the target ends the search:
tested in an order that was fixed before, several may be tried with no correction ("Learn then Test", arXiv 2110.01052;
for the same promise on the mean of a loss see "Conformal Risk Control", arXiv 2208.02814). The promise holds for
questions drawn as those of the calibration were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

GRID = (
    1e-6,
    3e-6,
    1e-5,
    1e-4,
    1e-3,
    0.01,
    0.02,
    0.05,
    0.1,
    0.15,
    0.2,
    0.25,
    0.3,
    0.35,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    0.95,
)
BISECTIONS = 60


@dataclass(frozen=True)
class Tried:
    """A threshold on the calibration split: questions whose answer stayed, of `total`, and the bound of their share."""

    threshold: float
    agreed: int
    total: int
    bound: float
    keep_ratio: float


def lower_bound(agreed: int, total: int, confidence: float) -> float:
    """Clopper and Pearson's lower bound of a share, 0..1.

    With a smaller share, so many would come less often than 1 - confidence.

    Args:
        agreed: 0..total. total: at least 1. confidence: in (0, 1).
    """
    if agreed == 0:
        return 0.0
    low, high = 0.0, agreed / total
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_least(agreed, total, middle) < 1 - confidence else (low, middle)
    return low


def _at_least(count: int, total: int, share: float) -> float:
    """Probability of `count` or more of `total`, each with probability `share`."""
    if share <= 0:
        return 0.0
    whole = math.lgamma(total + 1)
    logs = [
        whole - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * math.log(share) + (total - k) * math.log1p(-share)
        for k in range(count, total + 1)
        if share < 1
    ]
    return math.fsum(map(math.exp, logs)) if logs else 1.0


def choose(tried: Sequence[Tried], target: float) -> Tried | None:
    """The largest threshold up to which all of them have a bound of at least `target`; None: the lowest has not."""
    chosen = None
    for one in sorted(tried, key=lambda one: one.threshold):
        if one.bound < target:
            break
        chosen = one
    return chosen


def fewest_questions(target: float, confidence: float) -> int:
    """Number of questions below which no threshold reaches the target, even if every answer stays; both in (0, 1)."""
    return math.ceil(math.log(1 - confidence) / math.log(target))  # all agree: the bound is (1 - confidence)^(1 / n)


def most_that_may_differ(total: int, target: float, confidence: float) -> int:
    """Questions whose answer may differ without missing the target; -1: `total` is too few even if all agree."""
    differ = -1
    while differ < total - 1 and lower_bound(total - differ - 1, total, confidence) >= target:
        differ += 1
    return differ
