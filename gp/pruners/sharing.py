"""A budget that several groups of tokens share out each for itself: how many cells of a copy may have their crop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Costs = Callable[[list[int]], list[int]]  # cells of each group -> tokens of each, crops included


def most_that_fit(costs: Costs, most: Sequence[int], limits: Sequence[int]) -> list[int]:
    """The largest number of cells of each group whose cost is within its limit, by bisection of all groups at once.

    Args:
        costs: should not fall with the number of cells; where it does, a smaller number may be found.
        most: cells that a group has.
        limits: tokens.

    Returns:
        A number per group: at least 1 if there is a cell and a token for it, whatever its crop costs.
    """
    low = [min(1, cells, limit) for cells, limit in zip(most, limits, strict=True)]
    high = [min(cells, limit) for cells, limit in zip(most, limits, strict=True)]
    middle = list(high)  # all that there are, first: often they fit
    while any(a < b for a, b in zip(low, high)):
        for group, cost in enumerate(costs(middle)):
            if low[group] == high[group]:
                continue
            if cost <= limits[group]:
                low[group] = middle[group]
            else:
                high[group] = middle[group] - 1
        middle = [(a + b + 1) // 2 for a, b in zip(low, high)]
    return low


def best_of(mask: Tensor, ranks: Tensor, count: int) -> Tensor:
    """The `count` tokens of a mask with the greatest ranks, all of them if there are fewer; bool [N], float [N]."""
    if int(mask.sum()) <= count:
        return mask
    order = ranks.masked_fill(~mask, float("-inf")).argsort(descending=True, stable=True)
    out = torch.zeros_like(mask)
    out[order[: max(count, 0)]] = True
    return out & mask
