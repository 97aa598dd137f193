"""Two made-up methods: one leaves earlier caches alone, one makes the images smaller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from gp.backbones import Backbone
from gp.pruners import PruneView, RankingPruner
from gp.types import PruneOptions


class HalfWay(RankingPruner):
    """Keeps the last tokens of every prompt; layers up to the stage keep all of theirs."""

    name: ClassVar[str] = "half_way"

    def __init__(self, layer: int = 1) -> None:
        super().__init__()
        self.stages = (int(layer),)
        self.compact_cache = False

    def scores(self, view: PruneView) -> Tensor:
        return torch.arange(view.layout.num_tokens).float()


class QuarterSize(RankingPruner):
    """Halves both sides of every image, whatever the budget says."""

    name: ClassVar[str] = "quarter_size"
    sees_own_images: ClassVar[bool] = True

    def prepare(self, backbone: Backbone, inputs: Mapping[str, Tensor], options: PruneOptions) -> Mapping[str, Tensor]:
        smaller = [(max(h // 2, 1), max(w // 2, 1)) for h, w in backbone.image_sizes(inputs)]
        return backbone.downsample(inputs, smaller)

    def scores(self, view: PruneView) -> Tensor:
        raise AssertionError("it has no stage")
