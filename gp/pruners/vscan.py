"""VScan: a global and a local scan of the image, merging, then one more cut inside the LLM."""

from __future__ import annotations

from math import ceil
from typing import ClassVar

import torch
from torch import Tensor

from gp.backbones import Backbone
from gp.pruners.base import BEFORE_FIRST_LAYER, Pruner, PruneView, RankingPruner
from gp.pruners.per_image import image_counts, image_slices, top

CLIP_WINDOW = 6  # tokens; where the tower has no windows of its own


class VScan(RankingPruner):
    """Global and local scan, merging, then a cut inside the LLM.

    Half of the tokens are the best of each small window, half the best of the rest; the LLM then keeps a third.
    Before the LLM, n = int(a N) tokens stay: n // 2 by the attention received in a shallow vision block, dealt over
    windows with a quota of ceil((n // 2) / windows) each; the others by the attention received in the deepest block.
    Each dropped token joins the kept one that it resembles most (cosine of embeddings), which becomes the mean of them
    all. After the middle decoder layer the top int(a b N) stay, by the attention of the last prompt token with the next
    layer's projections *without* rotary embedding, softmax over all keys, mean over heads.

    Settings: b = 1/3 and the middle layer, as published for Qwen2.5-VL-7B ([14] of 28, a = 0.167: 11.1 %); a = 0.333
    and 0.5 give 22.2 and 33.3 %. For LLaVA (16 of 32 layers) 96 -> 32, 192 -> 64, 288 -> 96 tokens. `a` is solved from
    the budget; where it would exceed 1, b grows instead.

    Args:
        blocks: shallow and deep vision block.
        window: side of the local windows in tokens.
        layer: 0-based decoder layer of the second cut, at least one more layer must follow.
        kept_in_llm: b.
        compact_cache: whether the layers up to `layer` forget what the second cut drops; the published code keeps it.

    Raises:
        ValueError: a `kept_in_llm` outside (0, 1].

    Deviations: where the quotas leave tokens missing (images smaller than a window) the global scan fills up, the
    published code stops; quotas are rounded up for LLaVA as for Qwen2.5-VL; its second cut ignores rotary embedding,
    too. In the official comparison of LLaVA this second stage never ran. A FlashAttention path of the published code
    rotated queries and keys twice before scoring; ours reads no kernel.

    Source: Zhang et al., "VScan", 2025, sections 4.1 and 4.2.
    """

    name: ClassVar[str] = "vscan"
    paper = "2505.22654"

    def __init__(
        self, blocks: tuple[int, int], window: int, layer: int, kept_in_llm: float = 1 / 3, compact_cache: bool = False
    ) -> None:
        super().__init__()
        if not 0 < kept_in_llm <= 1:
            raise ValueError(f"pruner 'vscan': kept_in_llm must be in (0, 1], got {kept_in_llm}")
        self.attended = blocks
        self.window = window
        self.stages = (BEFORE_FIRST_LAYER, layer)
        self.kept_in_llm = kept_in_llm
        self.compact_cache = compact_cache

    @classmethod
    def for_model(
        cls,
        backbone: Backbone,
        prune_layer: int,
        layer: int | None = None,
        kept_in_llm: float = 1 / 3,
        compact_cache: bool = False,
    ) -> Pruner:
        layer = backbone.num_layers // 2 - 1 if layer is None else layer
        return cls(backbone.attention_blocks, backbone.window or CLIP_WINDOW, layer, kept_in_llm, compact_cache)

    def shares(self, budget: float, num_layers: int) -> list[float]:
        before = 0 if self.compact_cache else (self.stages[1] + 1) / num_layers  # layers whose cache is left alone
        first = budget / (before + (1 - before) * self.kept_in_llm)
        if first <= 1:
            return [first, first * self.kept_in_llm]
        return [1.0, (budget - before) / (1 - before)]

    def scores(self, view: PruneView) -> Tensor:
        if view.stage != BEFORE_FIRST_LAYER:
            return view.look_ahead(False).float().exp().mean(-1)
        shallow, deep = (view.prompt.vision_attention[block].received for block in self.attended)
        places = zip(image_slices(view), view.layout.grids, image_counts(view, self.counts(view)), strict=True)
        return torch.cat([scan(shallow[at].view(grid), deep[at], count, self.window) for at, grid, count in places])

    def merge(self, view: PruneView, keep_mask: Tensor) -> Tensor | None:
        if view.stage != BEFORE_FIRST_LAYER:
            return None
        embeds = view.visual_hidden()
        return torch.cat([merge_into_kept(embeds[place], keep_mask[place]) for place in image_slices(view)])


def scan(shallow: Tensor, deep: Tensor, count: int, window: int) -> Tensor:
    """Scores [V] of one image: 1 for the `count` tokens that stay.

    Args:
        shallow: [h, w], attention received in the shallow block.
        deep: [V], in the deep block.
        count: tokens to keep.
        window: side of the local windows.
    """
    chosen = torch.zeros_like(deep)
    chosen[local_picks(shallow, count // 2, window)] = 1
    rest = deep.masked_fill(chosen.bool(), float("-inf"))
    chosen[top(rest, count - int(chosen.sum()))] = 1
    return chosen


def local_picks(shallow: Tensor, count: int, window: int) -> Tensor:
    """Indices of up to `count` tokens, the best of each window in turn of their scores; the last windows are larger."""
    height, width = shallow.shape
    rows, columns = (max(1, side // window) for side in (height, width))
    row = (torch.arange(height, device=shallow.device) // window).clamp(max=rows - 1)
    column = (torch.arange(width, device=shallow.device) // window).clamp(max=columns - 1)
    of_window = (row.unsqueeze(1) * columns + column).flatten()
    order = shallow.flatten().argsort(descending=True, stable=True)
    member = torch.nn.functional.one_hot(of_window[order], rows * columns)
    place = (member.cumsum(0) * member).sum(1)  # 1 for the best of its window, 2 for the next, ...
    return order[place <= ceil(count / (rows * columns))][:count]


def merge_into_kept(embeds: Tensor, keep_mask: Tensor) -> Tensor:
    """Embeddings [V, D] of one image in which each kept token is the mean of itself and of those that joined it."""
    kept, dropped = keep_mask.nonzero()[:, 0], (~keep_mask).nonzero()[:, 0]
    if not len(kept) or not len(dropped):
        return embeds
    unit = torch.nn.functional.normalize(embeds.float(), dim=-1)
    joins = (unit[dropped] @ unit[kept].T).argmax(1)
    total = embeds[kept].float().index_add(0, joins, embeds[dropped].float())
    count = 1 + torch.bincount(joins, minlength=len(kept)).unsqueeze(1)
    return embeds.index_copy(0, kept, (total / count).to(embeds.dtype))
