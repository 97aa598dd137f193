"""The operations of a prefill that has run: its grids, crops and kept tokens as the cost model takes them."""

from __future__ import annotations

from torch import Tensor

from gp.bench.cost import CostModel, total
from gp.engine.prefill import Prefill
from gp.model import GlimpseModel

Grid = tuple[int, int]


def cost_of(model: GlimpseModel) -> CostModel:
    """The cost model of a loaded base with its glimpse."""
    assert model.glimpse is not None  # the caller has looked
    base = model.base.config
    itemsize, attn = model.backbone.dtype.itemsize, base._attn_implementation
    return CostModel(base, *model.glimpse.configs, itemsize, causal_half=attn != "eager")


def operations(
    cost: CostModel, done: Prefill, input_ids: Tensor, image_token_id: int, glimpses: bool, zooms: bool = False
) -> int:
    """Floating-point operations of a batch of prompts with one image each, rows padded to the longest.

    Args:
        cost: of the model.
        done: the prefill.
        input_ids: [B, S], the prompts that came.
        image_token_id: marks image tokens among them.
        glimpses: whether the glimpse looked; else nothing was pruned inside the decoder.
        zooms: whether it looked for `zoom`, which runs the prune layer for all tokens.
    """
    grids = [_size(mask) for mask in done.keep_masks]
    before, behind = text_around(input_ids, image_token_id, done)
    if not glimpses:
        return total(cost.prefill(grids, before + behind)).flops
    kept = [int(mask.sum()) for mask in done.keep_masks]
    again = done.seen_again
    if not again:
        return total(cost.prefill(grids, before + behind, kept, splits=not zooms)).flops
    frame, rows = sum(cost.image_frame), done.full_layout.rows
    wanted = [-frame] * done.full_layout.num_prompts  # `zoom` counts the frame of one crop
    for one in again:
        wanted[rows[one.crop.image]] += frame + int(one.keep_mask.sum())
    crops = [_size(one.keep_mask) for one in again]
    return total(cost.zoom(grids, crops, before, behind, max(kept), max(wanted))).flops


def text_around(input_ids: Tensor, image_token_id: int, done: Prefill) -> tuple[int, int]:
    """Text tokens of the longest prompt up to the image and behind it; what frames the image is before."""
    lengths = done.full_length.tolist()
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    ids = input_ids[longest, input_ids.shape[1] - lengths[longest] :]
    visual = (ids == image_token_id).nonzero().flatten()
    behind = len(ids) - 2 - int(visual[-1]) if len(visual) else 0
    return len(ids) - len(visual) - behind, behind


def _size(mask: Tensor) -> Grid:
    return mask.shape[0], mask.shape[1]
