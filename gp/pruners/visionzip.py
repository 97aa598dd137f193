"""VisionZip: the vision tower's dominant tokens, and the rest merged into a few contextual ones."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from gp.backbones import Backbone
from gp.pruners.base import BEFORE_FIRST_LAYER, Pruner, PruneView, RankingPruner
from gp.pruners.per_image import image_counts, image_slices, top

CONTEXTUAL_OF_KEPT = 10 / 64  # published for LLaVA: 54 dominant and 10 contextual tokens
CONTEXTUAL_OF_ALL = 0.05  # published for Qwen2.5-VL


class VisionZip(RankingPruner):
    """Tokens that the vision tower attends to; the others merged.

    Keeps the tokens that the vision tower attends to most; merges the others into evenly spaced ones among them.
    Dominant: the top ones by attention received in a late block (from [CLS] where there is one, else from all patches).
    Contextual: of the m others, those at 0, s, 2s, ... with s = max(1, m // c), c in all; each one left joins the
    contextual token with the most similar key (cosine, keys averaged over heads), whose embedding becomes its own plus
    the mean of those that joined. Both together are the budget. Does not see the question.

    Settings at 11.1 / 22.2 / 33.3 %: LLaVA (576 tokens) c = 10 / 20 / 30 of 64 / 128 / 192; Qwen2.5-VL c = 5 % of all
    tokens, at least 1, at most half of the budget, the rest dominant (6.1 / 17.2 / 28.3 %).

    Args:
        block: vision block that is read.
        contextual_of_kept, contextual_of_all: c as a share of the kept, or of all tokens; the smaller one counts.

    Deviations: [CLS] itself is not given to the LLM (LLaVA), one more dominant token takes its place; for LLaVA tokens
    are merged after the projector, where the published code merges before it; kept tokens keep their positions for
    LLaVA, too. The N x N attention is never formed, see `gp.backbones.vision_attention`.

    Source: Yang et al., "VisionZip", CVPR 2025, section 3.
    """

    name: ClassVar[str] = "visionzip"
    paper = "2412.04467"
    stages = (BEFORE_FIRST_LAYER,)

    def __init__(self, block: int, contextual_of_kept: float, contextual_of_all: float) -> None:
        super().__init__()
        self.attended = (block,)
        self.contextual_of_kept = contextual_of_kept
        self.contextual_of_all = contextual_of_all

    @classmethod
    def for_model(
        cls,
        backbone: Backbone,
        prune_layer: int,
        contextual_of_kept: float | None = None,
        contextual_of_all: float | None = None,
    ) -> Pruner:
        default = (CONTEXTUAL_OF_KEPT, 1.0) if backbone.attends_from_cls else (0.5, CONTEXTUAL_OF_ALL)
        of_kept, of_all = (d if g is None else g for d, g in zip(default, (contextual_of_kept, contextual_of_all)))
        return cls(backbone.attention_blocks[1], of_kept, of_all)

    def scores(self, view: PruneView) -> Tensor:
        """Ranks dominant tokens 2, contextual ones 1, the others 0."""
        return torch.cat([self._roles(view, place, count) for place, count in self._images(view)])

    def merge(self, view: PruneView, keep_mask: Tensor) -> Tensor:
        embeds = view.visual_hidden()
        keys = view.prompt.vision_attention[self.attended[0]].keys
        contextual = self.scores(view) == 1
        images = image_slices(view)
        return torch.cat([_merged(embeds[at], keys[at], contextual[at], ~keep_mask[at]) for at in images])

    def _images(self, view: PruneView) -> list[tuple[slice, int]]:
        return list(zip(image_slices(view), image_counts(view, self.counts(view)), strict=True))

    def _roles(self, view: PruneView, place: slice, count: int) -> Tensor:
        received = view.prompt.vision_attention[self.attended[0]].received[place]
        contextual = min(int(self.contextual_of_kept * count), max(1, int(self.contextual_of_all * len(received))))
        roles = torch.zeros_like(received)
        roles[top(received, count - contextual)] = 2
        others = (roles == 0).nonzero()[:, 0]
        if contextual:
            roles[others[:: max(1, len(others) // contextual)][:contextual]] = 1
        return roles


def _merged(embeds: Tensor, keys: Tensor, contextual: Tensor, dropped: Tensor) -> Tensor:
    """Embeddings [V, D] of an image in which the contextual tokens [V] took the dropped ones [V] in."""
    targets, dropped = contextual.nonzero()[:, 0], dropped.nonzero()[:, 0]
    if not len(targets) or not len(dropped):
        return embeds
    unit = torch.nn.functional.normalize(keys, dim=-1)
    joins = (unit[dropped] @ unit[targets].T).argmax(1)
    total = torch.zeros(len(targets), embeds.shape[1], device=embeds.device).index_add(
        0, joins, embeds[dropped].float()
    )
    count = torch.bincount(joins, minlength=len(targets)).clamp(min=1).unsqueeze(1)
    return embeds.index_add(0, targets, (total / count).to(embeds.dtype))
