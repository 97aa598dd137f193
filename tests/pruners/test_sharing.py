"""Bisection of several groups at once, and the best tokens of a mask, against trying everything."""

from __future__ import annotations

import torch

from gp.pruners.sharing import best_of, most_that_fit


def test_the_most_that_fit_is_what_trying_all_finds():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        sizes = torch.randint(0, 9, (3,), generator=generator).tolist()
        steps = [torch.randint(0, 6, (size,), generator=generator).cumsum(0).tolist() for size in sizes]
        limits = torch.randint(0, 20, (3,), generator=generator).tolist()

        def costs(counts, steps=steps):
            return [0 if count == 0 else count + of[count - 1] for of, count in zip(steps, counts)]

        found = most_that_fit(costs, sizes, limits)
        for group, (size, limit) in enumerate(zip(sizes, limits)):
            fitting = [k for k in range(size + 1) if costs(only(sizes, group, k))[group] <= limit]
            least = min(1, size, limit)
            assert found[group] == max([k for k in fitting if k <= limit] + [least]), (steps, limits)


def only(sizes: list[int], group: int, count: int) -> list[int]:
    """That number of cells of one group, none of the others."""
    return [count if number == group else 0 for number in range(len(sizes))]


def test_the_best_of_a_mask():
    mask = torch.tensor([True, False, True, True])
    ranks = torch.tensor([0.1, 9.0, 0.3, float("-inf")])
    assert best_of(mask, ranks, 3) is mask
    assert best_of(mask, ranks, 2).tolist() == [True, False, True, False]
    assert best_of(mask, ranks, 1).tolist() == [False, False, True, False]
    assert not best_of(mask, ranks, 0).any() and not best_of(mask, ranks, -3).any()
