"""Greedy MAP inference of a determinantal point process (DPP): tokens that are relevant and diverse."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6


def greedy_map(unit: Tensor, relevance: Tensor, count: int) -> Tensor:
    """Indices [count] of the greedy MAP subset under K_ij = r_i cos_ij r_j, in the order of the picks.

    Args:
        unit: [V, D], of length 1.
        relevance: r, [V].
        count: picks.
    """
    variance = relevance.square().clone()  # conditional variance of every token, the diagonal of K at first
    factors = unit.new_zeros(count, len(unit))  # rows of the incremental Cholesky factor
    picks = []
    for step in range(min(count, len(unit))):
        pick = variance.argmax()
        picks.append(pick)
        column = relevance * (unit @ unit[pick]) * relevance[pick]
        known = factors[:step].T @ factors[:step, pick]
        factors[step] = (column - known) / variance[pick].clamp(min=EPSILON**2).sqrt()
        variance = (variance - factors[step].square()).index_fill(0, pick, float("-inf"))
    return torch.stack(picks) if picks else torch.empty(0, dtype=torch.long, device=unit.device)
