"""Batches for the vision tower alone: dense scenes of one size, and half-size copies of larger ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import IterableDataset

from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.cards.views import half_copy
from gp.embedded.making.growing.dense import dense_targets
from gp.embedded.making.growing.images import sometimes_through_jpeg, to_tensor


@dataclass(frozen=True)
class TowerBatch:
    """A kind of batch: its share, its size in visual tokens, and how many of its images are scenes and half copies.

    `large`: share of cards that are made large, with large ink.
    """

    share: float
    rows: int
    columns: int
    num_scenes: int
    num_copies: int = 0
    large: float = 0.0


# Digits are learned cheapest where an image holds little else, so most batches are small pieces.
TOWER_BATCHES = (
    TowerBatch(0.40, 8, 8, 18, 6),
    TowerBatch(0.05, 8, 16, 9, 2),
    TowerBatch(0.05, 16, 8, 9, 2),
    TowerBatch(0.05, 10, 10, 10, 3),
    TowerBatch(0.14, 12, 12, 10),
    TowerBatch(0.06, 9, 14, 11),
    TowerBatch(0.18, 16, 16, 6),
    TowerBatch(0.04, 20, 13, 6),
    TowerBatch(0.03, 13, 20, 6),
)
# Large ink needs cards that small scenes do not have by themselves, and little else in them.
LARGE_BATCHES = (
    TowerBatch(0.35, 8, 8, 24, large=0.9),
    TowerBatch(0.10, 8, 12, 16, large=0.9),
    TowerBatch(0.15, 12, 12, 10, large=0.9),
    TowerBatch(0.08, 16, 16, 6, large=0.6),
    TowerBatch(0.06, 16, 16, 5, 4, large=0.3),
)
VAL_BATCHES = (TowerBatch(1.0, 8, 8, 24), TowerBatch(1.0, 8, 8, 0, 24), TowerBatch(1.0, 16, 16, 6))
HALFTONE_SHARE = 0.6


class TowerStream(IterableDataset):
    """Yields batches; batch `i` depends on the seed and `i` only.

    Args:
        builder: scene source.
        steps: numbers of the batches to yield.
        seed: the stream's.
        plans: kinds of batches, drawn by their share; with `in_turn` taken in turn.

    A batch holds `images` uint8 [B, 3, H, W], `targets` int64 [B, 4, V] (see `dense_targets`).

    """

    def __init__(self, builder: SceneBuilder, steps: range, seed: int, plans: Sequence[TowerBatch] = TOWER_BATCHES,
                 in_turn: bool = False):  # fmt: skip
        super().__init__()
        self.builder, self.steps, self.seed, self.plans, self.in_turn = builder, steps, seed, plans, in_turn

    def __iter__(self) -> Iterator[dict]:
        return map(self.batch, self.steps)

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """Batch number `step`."""
        rng = np.random.default_rng([self.seed, step])
        shares = np.array([plan.share for plan in self.plans])
        drawn = int(rng.choice(len(self.plans), p=shares / shares.sum()))
        plan = self.plans[step % len(self.plans) if self.in_turn else drawn]
        size = (plan.rows, plan.columns)
        images, targets = [], []
        for index in range(plan.num_scenes + plan.num_copies):
            shrink = 1 if index < plan.num_scenes else 2
            seed = int(rng.integers(2**40))
            scene = self.builder.build(
                seed, "dense", shrink * plan.rows, shrink * plan.columns, HALFTONE_SHARE, plan.large
            )
            image = half_copy(scene.image) if shrink == 2 else scene.image
            images.append(sometimes_through_jpeg(image, rng))
            targets.append(dense_targets(scene.cards, *size, shrink))
        return {"images": to_tensor(images), "targets": torch.from_numpy(np.stack(targets))}
