"""What a pruning method is: where it looks, and one score for every visual token. It owns no plumbing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from gp.selection import select
from gp.types import Prompt, PruneOptions, VisualLayout

BEFORE_FIRST_LAYER = -1


@dataclass
class PruneView:
    """What the engine shows a pruner at one of its stages. N: visual tokens of the batch; A: attention heads.

    Args:
        stage: the decoder layer that has just run, or `BEFORE_FIRST_LAYER`.
        prompt: the batch at this point (input of the next layer, vision taps).
        options: the call's options.
        attention: read layer -> [N, A], attention of the last position (the glimpse token, if the pruner appends
            one) to every visual token; -inf for tokens that an earlier stage dropped.
        alive: [N] bool, tokens that no earlier stage dropped.
        evidence_masks: one bool or 0..1 [h, w] an image, if the caller gave them.
        seed: for methods that draw; the same seed draws the same. One for the batch, or one a prompt.
    """

    stage: int
    prompt: Prompt
    options: PruneOptions
    alive: Tensor
    attention: dict[int, Tensor] = field(default_factory=dict)
    evidence_masks: Sequence[Tensor] | None = None
    seed: int | Sequence[int] = 0

    @property
    def layout(self) -> VisualLayout:
        return self.prompt.layout


class Pruner(nn.Module):
    """Base of all methods. A method states its attributes and implements `scores`.

    Attributes:
        name: what users write in `pruner=...`.
        stages: decoder layers after which tokens are dropped (`BEFORE_FIRST_LAYER`: before any); empty: never.
        read_layers: decoder layers whose attention row of the last position is wanted.
        log_softmax: whether that row is normalised over all visible keys.
        taps: vision layers whose features are wanted.
    """

    name: ClassVar[str]
    stages: tuple[int, ...] = ()
    read_layers: tuple[int, ...] = ()
    log_softmax: bool = False
    taps: tuple[int, ...] = ()

    def tokens(self) -> dict[int, Tensor]:
        """Decoder layer -> vectors [T, D]: those of layer 0 are appended to the prompt, later ones added there."""
        return {}

    @abstractmethod
    def scores(self, view: PruneView) -> Tensor:
        """Importance logits of all visual tokens, [N] float32; sigmoid(score) is compared with the threshold."""

    def keep(self, scores: Tensor, view: PruneView) -> Tensor:
        """Keep mask [N] from the scores; what earlier stages dropped stays dropped."""
        return select(scores.masked_fill(~view.alive, float("-inf")), view.layout, view.options) & view.alive

    def check(self, options: PruneOptions) -> None:
        """Raises ValueError if the method cannot work with these options."""


def require_budget(pruner: Pruner, options: PruneOptions) -> None:
    """For methods whose scores are only a ranking."""
    if options.max_keep_ratio is None and options.fixed_keep_ratio is None and options.num_keep is None:
        raise ValueError(f"pruner {pruner.name!r} only ranks tokens: give fixed_keep_ratio, max_keep_ratio or num_keep")


def flat_evidence(view: PruneView) -> Tensor:
    """The caller's evidence masks as one [N] float32, checked against the images."""
    masks = view.evidence_masks
    if masks is None:
        raise ValueError("this pruner needs evidence_masks: one [h, w] mask per image")
    given = [tuple(m.shape) for m in masks]
    if given != list(view.layout.grids):
        raise ValueError(f"evidence_masks have shapes {given}, but the images have {list(view.layout.grids)} tokens")
    return torch.cat([m.flatten() for m in masks]).float().to(view.prompt.hidden.device)
