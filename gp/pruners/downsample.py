"""Downsampling: the whole image at a lower resolution. A strong baseline in published studies."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import ClassVar

from torch import Tensor

from gp.backbones import Backbone
from gp.pruners.base import PruneView, RankingPruner
from gp.pruners.budget import mean_tokens
from gp.selection import Options, groups_of, whole_tokens


class Downsample(RankingPruner):
    """The whole image at a lower resolution.

    Resizes every image so that it yields no more visual tokens than the budget, and keeps them all.
    The grid is the one within the budget that best combines many tokens and the image's own shape; a budget of a prime
    number of tokens is therefore not met exactly. Pixels are resized bicubically with anti-aliasing. LLaVA's tower
    interpolates its position embeddings to the smaller grid.

    Settings: the budget is the only one. Source: none; every study that reports it does it so.
    """

    name: ClassVar[str] = "downsample"
    sees_own_images: ClassVar[bool] = True

    def prepare(self, backbone: Backbone, inputs: Mapping[str, Tensor], options: Options) -> Mapping[str, Tensor]:
        layout, _ = backbone.layout(inputs)
        if not layout.num_tokens:
            return inputs
        smaller, grids = [], iter(layout.grids)
        for group in groups_of(layout, options):
            share, left = mean_tokens(group) / max(group.size, 1), group.size
            while left:
                height, width = next(grids)
                smaller.append(fit_grid(height, width, whole_tokens(share, height * width)))
                left -= height * width
        return backbone.downsample(inputs, smaller)

    def scores(self, view: PruneView) -> Tensor:
        raise RuntimeError("pruner 'downsample' has no stage and is never asked for scores")


def fit_grid(height: int, width: int, budget: int) -> tuple[int, int]:
    """The (height, width) of at most `budget` tokens (at least one) that is large and has nearly the given shape."""
    candidates = [(h, min(width, budget // h)) for h in range(1, min(height, budget) + 1)] or [(1, 1)]

    def merit(grid: tuple[int, int]) -> float:
        shape = grid[0] * width / (grid[1] * height)  # 1: as the image
        return grid[0] * grid[1] * sqrt(min(shape, 1 / shape))

    return max(candidates, key=merit)
