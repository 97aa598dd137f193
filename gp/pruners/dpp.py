"""Greedy MAP inference of a determinantal point process (DPP): tokens that are relevant and diverse."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6
EXPLAINED = 1e-5  # share of a token's variance that rounding may leave in float32


def greedy_map(unit: Tensor, relevance: Tensor, count: int) -> Tensor:
    """Indices [count] of the greedy MAP subset under K_ij = r_i cos_ij r_j, in the order of the picks.

    All are different. Tokens whose variance the picks explain but for rounding are equal to the kernel: they come
    last, the most relevant first.

    Args:
        unit: [V, D], of length 1.
        relevance: r, [V], 0 or more.
        count: picks.
    """
    variance = relevance.square()  # conditional variance of every token, the diagonal of K at first
    explained = EXPLAINED * variance
    factors = unit.new_zeros(count, len(unit))  # rows of the incremental Cholesky factor
    last_resort = relevance - relevance.amax() - 1 if len(unit) else relevance  # below every variance
    picks = []
    for step in range(min(count, len(unit))):
        pick = torch.where(variance > explained, variance, last_resort).argmax()
        picks.append(pick)
        column = relevance * (unit @ unit[pick]) * relevance[pick]
        known = factors[:step].T @ factors[:step, pick]
        new = (column - known) / variance[pick].clamp(min=EPSILON**2).sqrt()
        factors[step] = torch.where(variance[pick] > explained[pick], new, 0.0)
        variance = (variance - factors[step].square()).index_fill(0, pick, float("-inf"))
        last_resort = last_resort.index_fill(0, pick, float("-inf"))
    return torch.stack(picks) if picks else torch.empty(0, dtype=torch.long, device=unit.device)
