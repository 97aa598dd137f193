"""Numbers of tokens that a budget comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gp.selection import exact_counts
from gp.types import PruneOptions

ROUNDING = 1e-6  # 0.29 * 100 is 28.999999999999996


def mean_tokens(sizes: Sequence[int], options: PruneOptions) -> list[float]:
    """Tokens that the call's budget allows each group, mean over layers.

    Raises:
        ValueError: `num_keep` does not match the groups or asks for more tokens than there are.
    """
    if options.num_keep is not None:
        return [float(count) for count in exact_counts(sizes, options)]
    ratio = options.fixed_keep_ratio if options.fixed_keep_ratio is not None else options.max_keep_ratio
    return [ratio * size for size in sizes]


def tokens_after(share: float, size: int) -> int:
    """Converts a share of a group to whole tokens, rounded down."""
    return int(share * size + ROUNDING)


def bisect(increasing: Callable[[float], float], target: float, low: float = 0.0, high: float = 1.0) -> float:
    """The argument in [low, high] at which an increasing function reaches the target."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < target else (low, middle)
    return (low + high) / 2
