"""Importance logits -> keep mask: threshold, cap, exact budget, minimum and anchors, for all prompts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gp.types import PruneOptions, VisualLayout

Options = PruneOptions | Sequence[PruneOptions]  # of all prompts of a batch, or one per prompt
ROUNDING = 1e-6  # 0.29 * 100 is 28.999999999999996


@dataclass(frozen=True)
class Group:
    """Visual tokens that share a budget: those of a prompt, or of an image.

    Args:
        prompt: the row of the batch that it is in.
        size: its visual tokens.
        options: of its prompt.
        num_keep: what `options.num_keep` says of this group; None: nothing.
    """

    prompt: int
    size: int
    options: PruneOptions
    num_keep: int | None

    @property
    def exact(self) -> int | None:
        """Number of top tokens to keep, where the options fix it; else None."""
        ratio = self.options.fixed_keep_ratio
        return self.num_keep if self.num_keep is not None or ratio is None else whole_tokens(ratio, self.size)

    @property
    def at_most(self) -> int:
        """Number of tokens that `max_keep_ratio` allows."""
        ratio = self.options.max_keep_ratio
        return self.size if ratio is None else whole_tokens(ratio, self.size)


def whole_tokens(share: float, size: int) -> int:
    """Converts a share of a group to whole tokens, rounded down; the only place where a ratio becomes a number."""
    return int(share * size + ROUNDING)


@torch.no_grad()
def select(importance_logits: Tensor, layout: VisualLayout, options: Options) -> Tensor:
    """Decides which visual tokens stay.

    In this order, each step on every group (a prompt, or an image, by `budget_scope`):
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
    groups = groups_of(layout, options)
    if not groups or layout.num_tokens == 0:
        return torch.ones(layout.num_tokens, dtype=torch.bool, device=importance_logits.device)
    sizes = [group.size for group in groups]
    scores = _pad_groups(importance_logits.float(), sizes, float("-inf"))
    valid = _pad_groups(torch.ones_like(importance_logits, dtype=torch.bool), sizes, False)
    rank, exact = _rank_descending(scores), [group.exact for group in groups]

    def column(values: Sequence) -> Tensor:
        return torch.tensor(values).unsqueeze(1).to(scores.device, non_blocking=True)  # [G, 1]

    keep = rank < column([count or 0 for count in exact])
    if None in exact:
        likely = scores.sigmoid() > column([float(group.options.threshold) for group in groups])
        most = column([group.at_most for group in groups])
        likely = torch.where(likely.sum(1, keepdim=True) > most, rank < most, likely)
        keep = torch.where(column([count is None for count in exact]), likely, keep)
    least = column([group.options.min_kept for group in groups])
    too_few = (keep & valid).sum(1, keepdim=True) < least
    keep = keep | (too_few & (rank < least))
    keep = torch.cat([row[:count] for row, count in zip(keep, sizes)])
    anchors = [one.anchors for one in of_prompts(options, layout)]
    return keep | anchor_mask(layout, anchors).to(keep.device) if any(anchors) else keep


def of_prompts(options: Options, layout: VisualLayout) -> list[PruneOptions]:
    """The options of each prompt; of a batch's `num_keep` each prompt gets the entries of its groups.

    Raises:
        ValueError: another number of entries than there are prompts, or groups of a batch's `num_keep`.
    """
    if not isinstance(options, PruneOptions):
        if len(options) != layout.num_prompts:
            raise ValueError(f"options has {len(options)} entries for {layout.num_prompts} prompts")
        return list(options)
    if not isinstance(options.num_keep, tuple):
        return [options] * layout.num_prompts
    by_prompt = [len(sizes) for sizes in _sizes(layout, [options] * layout.num_prompts)]
    if len(options.num_keep) != sum(by_prompt):
        raise ValueError(f"num_keep has {len(options.num_keep)} entries for {sum(by_prompt)} {options.budget_scope}s")
    entries = iter(options.num_keep)
    return [options.but(num_keep=tuple(next(entries) for _ in range(count))) for count in by_prompt]


def groups_of(layout: VisualLayout, options: Options) -> list[Group]:
    """All groups of the batch, in the order of their tokens.

    Raises:
        ValueError: `num_keep` does not match the groups or asks for more tokens than there are.
    """
    groups, rows = [], of_prompts(options, layout)
    for prompt, (one, sizes) in enumerate(zip(rows, _sizes(layout, rows), strict=True)):
        groups += [Group(prompt, size, one, count) for size, count in zip(sizes, _num_keep(one, sizes), strict=True)]
    return groups


def known_counts(layout: VisualLayout, options: Options) -> list[int] | None:
    """Counts what `select` keeps of each prompt, where the options alone say so: the host need not ask the device.

    Returns:
        One number per prompt; None where scores or anchors have a say.
    """
    counts = [0] * layout.num_prompts
    for group in groups_of(layout, options):
        if group.options.anchors or (exact := group.exact) is None:
            return None
        counts[group.prompt] += max(exact, min(group.options.min_kept, group.size))
    return counts


def anchor_mask(layout: VisualLayout, anchors: Sequence[tuple[str, ...]]) -> Tensor:
    """True at the named corners (`tl`, `tr`, `bl`, `br`) of every image, [N] bool; `anchors`: of each prompt."""
    masks = []
    for (height, width), prompt in zip(layout.grids, layout.rows, strict=True):
        mask = torch.zeros(height, width, dtype=torch.bool)
        for name in anchors[prompt]:
            mask[0 if name[0] == "t" else -1, 0 if name[1] == "l" else -1] = True
        masks.append(mask.flatten())
    return torch.cat(masks).to(layout.device, non_blocking=True)


def _sizes(layout: VisualLayout, rows: Sequence[PruneOptions]) -> list[list[int]]:
    """Sizes of the groups of each prompt."""
    images: list[list[int]] = [[] for _ in rows]
    for prompt, size in zip(layout.rows, layout.image_sizes, strict=True):
        images[prompt].append(size)
    return [sizes if one.budget_scope == "image" else [sum(sizes)] for one, sizes in zip(rows, images, strict=True)]


def _num_keep(options: PruneOptions, sizes: Sequence[int]) -> Sequence[int | None]:
    """Entry of `num_keep` for each group of a prompt."""
    given, scope = options.num_keep, options.budget_scope
    if given is None:
        return [None] * len(sizes)
    if not isinstance(given, tuple):
        return [min(given, size) for size in sizes]
    if len(given) != len(sizes):
        raise ValueError(f"num_keep has {len(given)} entries for the {len(sizes)} {scope}s of its prompt")
    for wanted, size in zip(given, sizes):
        if wanted > size:
            raise ValueError(f"num_keep {wanted} is outside 0..{size}, the tokens of its {scope}")
    return given


def _pad_groups(values: Tensor, sizes: list[int], filling: float) -> Tensor:
    """Pads groups: [N] -> [G, max size]; sizes are known to the host, so that it does not wait for the device."""
    return pad_sequence(values.split(sizes), batch_first=True, padding_value=filling)


def _rank_descending(scores: Tensor) -> Tensor:
    """Rank of every score in its row, 0 for the highest; ties in order of position."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)
