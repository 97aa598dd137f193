"""Dense heads: every visual token names colour, shape and both digits of the card under it; thrown away at the end."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gp.embedded.cards.layout import TOKEN_PX, box_coverage
from gp.embedded.cards.looks import COLORS_RGB, SHAPES
from gp.embedded.cards.scene import Card

IGNORE = -100
COLOR_CLASSES = ("background", *COLORS_RGB)
SHAPE_CLASSES = ("background", *SHAPES)
DENSE_NAMES = ("color", "shape", "left_digit", "right_digit")


def dense_targets(cards: tuple[Card, ...], rows: int, columns: int, shrink: int = 1) -> np.ndarray:
    """Classes of every visual token, int64 [4, rows * columns]: colour, shape, left digit, right digit.

    A token belongs to the card that covers at least half of it. Where two cards cover half each, or cards cover less
    than half, all four classes are -100 (ignored). A bare token is background (class 0) and has no digits (-100).

    Args:
        rows, columns: of the image that the tower sees.
        shrink: how many times smaller it is than the scene; halftone digits have no target if it is more than 1.
    """
    coverage = np.stack([box_coverage(card.box_xyxy_px, rows, columns, TOKEN_PX * shrink).ravel() for card in cards])
    targets = np.full((4, rows * columns), IGNORE, dtype=np.int64)
    targets[:2, coverage.sum(axis=0) == 0] = 0
    order = np.sort(coverage, axis=0)
    runner_up = order[-2] if len(cards) > 1 else np.zeros(rows * columns)
    owner = coverage.argmax(axis=0)
    for token in np.flatnonzero((order[-1] >= 0.5) & (order[-1] > runner_up)):
        card = cards[int(owner[token])]
        targets[:2, token] = COLOR_CLASSES.index(card.color), SHAPE_CLASSES.index(card.shape)
        if shrink == 1 or card.ink != "halftone":
            targets[2:, token] = card.digits
    return targets


class DenseHeads(nn.Module):
    """Linear heads over visual tokens of `hidden_size`."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.sizes = [len(COLOR_CLASSES), len(SHAPE_CLASSES), 10, 10]
        self.linear = nn.Linear(hidden_size, sum(self.sizes))

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy summed over the four heads, and their accuracies.

        Args:
            tokens: [B, V, D]. targets: int64 [B, 4, V], -100 where ignored.

        Returns:
            Loss (scalar; a head without a target adds 0) and accuracies float32 [4] (nan where there is no target).
        """
        losses, accuracies = [], []
        for index, logits in enumerate(self.linear(tokens).split(self.sizes, dim=-1)):
            target = targets[:, index]
            known = target != IGNORE
            total = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORE, reduction="sum")
            losses.append(total / known.sum().clamp(min=1))
            accuracies.append((logits.argmax(-1) == target)[known].float().mean())
        return torch.stack(losses).sum(), torch.stack(accuracies)
