"""One image's embeddings through one of gp's methods, as the engine would show them to it before the first layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gp.pruners import BEFORE_FIRST_LAYER, Pruner, PruneView
from gp.types import Prompt, PruneOptions, VisionAttention, VisualLayout


@torch.no_grad()
def prune_image(
    pruner: Pruner,
    embeds: Tensor,
    grid: tuple[int, int],
    count: int,
    attention: Mapping[int, VisionAttention],
    seed: int,
    num_layers: int,
) -> tuple[Tensor, Tensor]:
    """Keeps an exact number of an image's visual tokens.

    Args:
        pruner: ranks tokens before the first layer.
        embeds: [V, D], what the LLM would see of the image.
        grid: (height, width) of the image in visual tokens.
        count: tokens to keep.
        attention: vision block -> its attention over this image, of the blocks that the method reads.
        seed: for methods that draw.
        num_layers: decoder layers.

    Returns:
        Embeddings of the kept tokens [count, D], others merged into them where the method merges, and the numbers of
        these tokens in raster order, [count] int64, ascending.

    Raises:
        ValueError: scores that are not finite.
    """
    view = image_view(embeds, grid, count, attention, seed, num_layers)
    scores = pruner.scores(view)
    if not bool(scores.isfinite().all()):
        raise ValueError(f"pruner {pruner.name!r}: scores of visual tokens are not finite numbers")
    keep_mask = pruner.keep(scores, view)
    merged = pruner.merge(view, keep_mask)
    kept = keep_mask.nonzero()[:, 0]
    return (embeds if merged is None else merged)[kept].to(embeds.dtype), kept


def image_view(
    embeds: Tensor,
    grid: tuple[int, int],
    count: int,
    attention: Mapping[int, VisionAttention],
    seed: int,
    num_layers: int,
) -> PruneView:
    """A prompt of one image and no text, before the first layer; arguments as for `prune_image`."""
    size, device = len(embeds), embeds.device
    everything = torch.ones(1, size, dtype=torch.bool, device=device)
    prompt = Prompt(
        hidden=embeds.unsqueeze(0),
        attention_mask=everything,
        position_ids=torch.zeros(1, 1, size, dtype=torch.long, device=device),  # no method of ours reads positions
        visual_id=torch.arange(size, device=device).unsqueeze(0),
        layout=VisualLayout(grids=(grid,), rows=(0,), num_prompts=1, device=device),
        vision_attention=dict(attention),
        lengths=[size],
    )
    return PruneView(
        stage=BEFORE_FIRST_LAYER,
        num_layers=num_layers,
        prompt=prompt,
        options=PruneOptions(num_keep=count, budget_scope="image"),
        alive=everything[0],
        seed=seed,
    )
