"""Numbers of tokens that a budget comes to."""

from __future__ import annotations

from collections.abc import Callable

from gp.selection import Group


def mean_tokens(group: Group) -> float:
    """Tokens that the call's budget allows a group, mean over layers.

    Raises:
        ValueError: options without a budget.
    """
    if group.num_keep is not None:
        return float(group.num_keep)
    options = group.options
    ratio = options.max_keep_ratio if options.fixed_keep_ratio is None else options.fixed_keep_ratio
    if ratio is None:
        raise ValueError("these options have no budget: give fixed_keep_ratio, max_keep_ratio or num_keep")
    return ratio * group.size


def bisect(increasing: Callable[[float], float], target: float, low: float = 0.0, high: float = 1.0) -> float:
    """The argument in [low, high] at which an increasing function reaches the target."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < target else (low, middle)
    return (low + high) / 2
