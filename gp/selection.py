"""Importance logits -> keep mask: threshold, cap, exact budget, minimum and anchors, for all prompts at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gp.types import PruneOptions, VisualLayout


@torch.no_grad()
def select(importance_logits: Tensor, layout: VisualLayout, options: PruneOptions) -> Tensor:
    """Decides which visual tokens stay.

    In this order, each step on every group (a prompt, or an image, by `options.budget_scope`):
    keep where sigmoid(logit) > threshold; if the kept share exceeds `max_keep_ratio`, keep the top
    int(ratio * V) instead; `fixed_keep_ratio` and `num_keep` keep exactly their number of top tokens;
    if fewer than `min_kept` remain, add the top `min_kept`; add the anchors of every image.
    So minimum and anchors may exceed a budget, as in the published model.

    Args:
        importance_logits: [N] float, all visual tokens of the batch; compared in float32.
        layout: the images of the batch.
        options: the call's options.

    Returns:
        keep_mask, [N] bool, True = kept.

    Raises:
        ValueError: `num_keep` does not match the groups or asks for more tokens than there are.

    Source: GlimpsePrune (arXiv 2508.01548), section 3.3; order of the steps as in the released code.
    """
    sizes = layout.group_sizes(options.budget_scope)
    if not sizes or layout.num_tokens == 0:
        return torch.ones(layout.num_tokens, dtype=torch.bool, device=importance_logits.device)
    scores = _pad_groups(importance_logits.float(), sizes, float("-inf"))
    valid = _pad_groups(torch.ones_like(importance_logits, dtype=torch.bool), sizes, False)
    size = valid.sum(1, keepdim=True)  # [G, 1]
    rank = _rank_descending(scores)
    exact = exact_counts(sizes, options)
    if exact is not None:
        keep = rank < torch.tensor(exact).unsqueeze(1).to(rank.device, non_blocking=True)
    else:
        keep = scores.sigmoid() > options.threshold
        if options.max_keep_ratio is not None:
            too_many = keep.sum(1, keepdim=True).double() / size.clamp(min=1) > options.max_keep_ratio
            most = (options.max_keep_ratio * size.double()).long()  # int(ratio * V), in float64 as Python computes it
            keep = torch.where(too_many, rank < most, keep)
    too_few = (keep & valid).sum(1, keepdim=True) < options.min_kept
    keep = keep | (too_few & (rank < options.min_kept))
    keep = torch.cat([row[:count] for row, count in zip(keep, sizes)])
    return keep | anchor_mask(layout, options.anchors).to(keep.device) if options.anchors else keep


def exact_counts(sizes: Sequence[int], options: PruneOptions) -> Sequence[int] | None:
    """Number of top tokens to keep of each group, where the options fix it; else None.

    Args:
        sizes: visual tokens of each group, known to the host.
        options: the call's options.

    Raises:
        ValueError: `num_keep` does not match the groups or asks for more tokens than there are.
    """
    if options.num_keep is None:
        ratio = options.fixed_keep_ratio
        return None if ratio is None else [int(ratio * size) for size in sizes]
    if len(options.num_keep) != len(sizes):
        raise ValueError(f"num_keep has {len(options.num_keep)} entries for {len(sizes)} {options.budget_scope}s")
    for wanted, size in zip(options.num_keep, sizes):
        if not 0 <= wanted <= size:
            raise ValueError(f"num_keep {wanted} is outside 0..{size}, the tokens of its {options.budget_scope}")
    return options.num_keep


def known_counts(layout: VisualLayout, options: PruneOptions) -> list[int] | None:
    """Counts what `select` keeps of each prompt, where the options alone say so: the host need not ask the device.

    Returns:
        One number per prompt; None where scores or anchors have a say.
    """
    sizes = layout.group_sizes(options.budget_scope)
    exact = exact_counts(sizes, options)
    if options.anchors or exact is None:
        return None
    counts = [max(count, min(options.min_kept, size)) for count, size in zip(exact, sizes, strict=True)]
    if options.budget_scope == "prompt":
        return counts
    of_prompt = [0] * len(layout.prompt_sizes)
    for prompt, count in zip(layout.rows, counts, strict=True):
        of_prompt[prompt] += count
    return of_prompt


def anchor_mask(layout: VisualLayout, anchors: tuple[str, ...]) -> Tensor:
    """True at the named corners (`tl`, `tr`, `bl`, `br`) of every image, [N] bool."""
    masks = []
    for height, width in layout.grids:
        mask = torch.zeros(height, width, dtype=torch.bool, device=layout.device)
        for name in anchors:
            mask[0 if name[0] == "t" else -1, 0 if name[1] == "l" else -1] = True
        masks.append(mask.flatten())
    return torch.cat(masks)


def _pad_groups(values: Tensor, sizes: list[int], filling: float) -> Tensor:
    """Pads groups: [N] -> [G, max size]; sizes are known to the host, so that it does not wait for the device."""
    return pad_sequence(values.split(sizes), batch_first=True, padding_value=filling)


def _rank_descending(scores: Tensor) -> Tensor:
    """Rank of every score in its row, 0 for the highest; ties in order of position."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)
