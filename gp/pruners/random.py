"""Uniform draw without replacement: the floor of every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from gp.backbones import Backbone
from gp.pruners.base import Pruner, PruneView, RankingPruner


class RandomPruner(RankingPruner):
    """Random scores, seeded by the call's `seed`; drops after the given layer, like the method it is compared with.

    Args:
        prune_layer: decoder layer after which tokens are dropped, -1 for before the first.
    """

    name: ClassVar[str] = "random"

    def __init__(self, prune_layer: int = -1) -> None:
        super().__init__()
        self.stages = (prune_layer,)

    @classmethod
    def for_model(cls, backbone: Backbone, prune_layer: int) -> Pruner:
        return cls(prune_layer)

    def scores(self, view: PruneView) -> Tensor:
        drawn = _draw(view.layout.prompt_sizes, view.seed)
        return drawn.to(view.prompt.hidden.device, non_blocking=True)


def _draw(prompt_sizes: Sequence[int], seed: int | Sequence[int]) -> Tensor:
    """Uniform in [0, 1), [N]; with a seed a prompt, a prompt's draw does not depend on its batch."""
    if isinstance(seed, int):
        return torch.rand(sum(prompt_sizes), generator=torch.Generator().manual_seed(seed))
    pairs = zip(prompt_sizes, seed, strict=True)
    return torch.cat([torch.rand(size, generator=torch.Generator().manual_seed(own)) for size, own in pairs])
