"""Parts that several methods share: budgets dealt to images, and selections within one image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gp.pruners.base import PruneView


def deal(total: int, sizes: Sequence[int]) -> list[int]:
    """Deals a number of tokens to images in proportion to their sizes, by largest remainder."""
    whole = sum(sizes)
    exact = [total * size / max(whole, 1) for size in sizes]
    dealt = [int(share) for share in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda image: dealt[image] - exact[image])
    for image in by_remainder[: total - sum(dealt)]:
        dealt[image] += 1
    return dealt


def image_counts(view: PruneView, group_counts: Sequence[int]) -> list[int]:
    """Tokens of each image, given those of each group that shares a budget (a prompt, or an image)."""
    sizes: list[list[int]] = [[] for _ in range(view.layout.num_prompts)]
    for row, size in zip(view.layout.rows, view.layout.image_sizes):
        sizes[row].append(size)
    counts = []
    for group, count in zip(view.groups(), group_counts, strict=True):
        shared = group.options.budget_scope == "prompt"
        counts += deal(count, sizes[group.prompt]) if shared else [count]
    return counts


def image_slices(view: PruneView) -> Iterator[slice]:
    """Slices of the N tokens of the batch, one per image."""
    start = 0
    for size in view.layout.image_sizes:
        yield slice(start, start + size)
        start += size


def group_slices(view: PruneView) -> Iterator[slice]:
    """Slices of the N tokens of the batch, one per group that shares a budget."""
    start = 0
    for group in view.groups():
        yield slice(start, start + group.size)
        start += group.size


def top(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest scores [V], ties to the earlier token, in ascending order."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def picked_first(order: Tensor, basis: Tensor) -> Tensor:
    """Scores that rank the picks of a greedy method in their order, and everything else below.

    Args:
        order: tokens in the order of the picks.
        basis: [V], what the picks were made from: where it is not finite, neither is the score.
    """
    scores = 0.0 * basis.float()
    return scores.index_add(0, order, torch.arange(len(order), 0, -1, device=order.device, dtype=scores.dtype))
