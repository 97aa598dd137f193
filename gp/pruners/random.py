"""Uniform draw without replacement: what every other method must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from gp.pruners.base import AtPruneLayer, PruneView, RankingPruner


class RandomPruner(AtPruneLayer, RankingPruner):
    """Uniform draw; without a budget as many tokens as `glimpse` kept for the same question.

    Scores are random, seeded by the call's `seed`; tokens are dropped at the layer of the method it is compared with.
    """

    name: ClassVar[str] = "random"
    needs_hidden = False

    def scores(self, view: PruneView) -> Tensor:
        drawn = _draw(view.layout.prompt_sizes, view.seed)
        return drawn.to(view.alive.device, non_blocking=True)


def _draw(prompt_sizes: Sequence[int], seed: int | Sequence[int]) -> Tensor:
    """Uniform in [0, 1), [N]; with one seed per prompt, a prompt's draw does not depend on its batch."""
    if isinstance(seed, int):
        return torch.rand(sum(prompt_sizes), generator=torch.Generator().manual_seed(seed))
    pairs = zip(prompt_sizes, seed, strict=True)
    return torch.cat([torch.rand(size, generator=torch.Generator().manual_seed(own)) for size, own in pairs])
