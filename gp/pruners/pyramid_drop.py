"""PyramidDrop: fewer visual tokens after each of three depths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from gp.backbones import Backbone
from gp.pruners.base import Pruner, PruneView, RankingPruner
from gp.pruners.budget import bisect


class PyramidDrop(RankingPruner):
    """Fewer tokens after each of three depths.

    After each stage keeps the tokens that the last prompt token will look at in the next layer.

    score_j = mean over heads of softmax(q_last K^T / sqrt(d))_j with the norm, projections and rotary embedding of the
    layer after the stage, over all keys. After stage s the top int(N r_s) of the N original tokens stay,
    r_s = lambda^s.

    Settings: the published default, after layers 8, 16 and 24 of 32 with ratios 1/2, 1/4, 1/8, is a budget of 46.9 %,
    so it is none of the usual ones. As the author advises, the ratios stay geometric, the stages move to 2 layers, a
    quarter and half of them, and lambda is solved from the budget. At 11.1 / 22.2 / 33.3 %:
    0.191 / 0.419 / 0.559 of 32 layers, 0.169 / 0.411 / 0.555 of 28, 0.207 / 0.425 / 0.563 of 36. No budget
    below 2 / layers can be met.

    Args:
        layers: 0-based decoder layers after which tokens are dropped, at least one more layer must follow.
        compact_cache: whether earlier layers forget the dropped tokens; the published code keeps them. If so, the
            last stage meets the budget: lambda^3 = budget.

    Raises:
        ValueError: layers that do not increase.

    Deviations: kept tokens keep their rotary positions, the published code renumbers them. There is no published code
    for Qwen2.5-VL; ours is the same method on it.

    Source: Xing et al., "PyramidDrop", CVPR 2025, section 3; issue 29 of its repository for budgets.
    """

    name: ClassVar[str] = "pyramid_drop"
    paper = "2410.17247"

    def __init__(self, layers: Sequence[int], compact_cache: bool = False) -> None:
        super().__init__()
        if not layers or list(layers) != sorted(set(layers)):
            raise ValueError(f"pruner 'pyramid_drop': layers must increase and be at least one, got {list(layers)}")
        self.stages = tuple(layers)
        self.compact_cache = compact_cache

    @classmethod
    def for_model(
        cls,
        backbone: Backbone,
        prune_layer: int,
        layers: Sequence[int] | None = None,
        compact_cache: bool = False,
    ) -> Pruner:
        return cls(layers if layers is not None else default_layers(backbone.num_layers), compact_cache)

    def scores(self, view: PruneView) -> Tensor:
        return view.look_ahead(True).float().exp().mean(-1)

    def shares(self, budget: float, num_layers: int) -> list[float]:
        powers = range(1, len(self.stages) + 1)
        if self.compact_cache:
            return [budget ** (power / len(self.stages)) for power in powers]
        self.refuse_below((self.stages[0] + 1) / num_layers, budget, num_layers)
        ratio = bisect(lambda ratio: self._mean(ratio, num_layers), budget)
        return [ratio**power for power in powers]

    def _mean(self, ratio: float, num_layers: int) -> float:
        """Mean over layers of the share of tokens left."""
        ends = [*(stage + 1 for stage in self.stages), num_layers]
        return (ends[0] + sum(ratio**i * (b - a) for i, (a, b) in enumerate(pairwise(ends), 1))) / num_layers


def default_layers(num_layers: int) -> tuple[int, ...]:
    """Stages after 2, a quarter and half of the layers, closer together in a shallow model."""
    first = min(2, max(1, num_layers // 8))
    second = max(first + 1, num_layers // 4)
    return first - 1, second - 1, max(second + 1, num_layers // 2) - 1
