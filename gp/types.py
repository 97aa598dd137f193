"""The few objects that travel between the rooms: a prompt, its visual tokens, and a call's pruning options.

Shapes in all of gp use one letter per size:

    B  prompts of the batch (rows)             N  visual tokens of the batch
    S  positions of a row, padding included    V  visual tokens of one image, or of one group that shares a budget
    R  the same after pruning                  G  such groups
    Q  positions that are new or ask           n  images (or boxes)
    T  tokens that a method appends            h, w  rows and columns of an image's grid of visual tokens
    L  tokens of an answer                     K  patches of the vision tower, [CLS] not counted
    H  attention heads; H_kv of keys           D, C  width of the LLM, of the vision tower
    P  rotary axes (3: Qwen, 1: LLaVA)         d  size of a head
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

ANCHORS = ("tl", "tr", "bl", "br")
BUDGET_SCOPES = ("prompt", "image")
BUDGETS = ("max_keep_ratio", "fixed_keep_ratio", "num_keep")


@dataclass(frozen=True)
class PruneOptions:
    """Options by which one call turns importance logits into a keep decision; see `gp.selection.select` for the steps.

    Args:
        threshold: a token is kept if sigmoid(importance logit) is strictly greater; in [0, 1).
        max_keep_ratio: upper bound on kept / visual tokens, in (0, 1]; None: no bound.
        fixed_keep_ratio: keep exactly the top int(ratio * visual tokens), whatever the threshold says; in (0, 1].
        num_keep: keep exactly this many tokens of each group (a prompt, or an image, by `budget_scope`): a number for
            all groups (groups with fewer tokens keep all), or one entry per group. Like the ratios it is a number of
            entries in the KV cache, mean over layers, for methods that leave the caches of earlier layers alone: they
            keep fewer tokens in later layers. `downsample` makes images of at most so many tokens.
        min_kept: at least this many tokens of each group survive (all of them if there are fewer).
        anchors: grid corners of every image that are always kept, from `ANCHORS`.
        budget_scope: `prompt` counts all images of a prompt together (as the published model does), `image` each one.

    Raises:
        ValueError: a value of another type or outside its range, or two options that contradict each other.
    """

    threshold: float = 0.5
    max_keep_ratio: float | None = None
    fixed_keep_ratio: float | None = None
    num_keep: int | tuple[int, ...] | None = None
    min_kept: int = 1
    anchors: tuple[str, ...] = ()
    budget_scope: str = "prompt"

    def __post_init__(self) -> None:
        for name in ("num_keep", "anchors"):
            if isinstance(given := getattr(self, name), list):
                object.__setattr__(self, name, tuple(given))
        if not (_is_number(self.threshold) and 0.0 <= self.threshold < 1.0):
            raise ValueError(f"threshold must be in [0, 1), got {self.threshold!r}")
        for name in ("max_keep_ratio", "fixed_keep_ratio"):
            ratio = getattr(self, name)
            if ratio is not None and not (_is_number(ratio) and 0.0 < ratio <= 1.0):
                raise ValueError(f"{name} must be in (0, 1], got {ratio!r}")
        counts = self.num_keep if isinstance(self.num_keep, tuple) else (self.num_keep,)
        if self.num_keep is not None and not all(_is_count(count) for count in counts):
            raise ValueError(
                f"num_keep must be a number of tokens, or one per {self.budget_scope}, got {self.num_keep!r}"
            )
        if not _is_count(self.min_kept):
            raise ValueError(f"min_kept must be 0 or more, got {self.min_kept!r}")
        if not isinstance(self.anchors, tuple) or not all(one in ANCHORS for one in self.anchors):
            raise ValueError(f"anchors must be among {ANCHORS}, got {self.anchors!r}")
        if self.budget_scope not in BUDGET_SCOPES:
            raise ValueError(f"budget_scope must be one of {BUDGET_SCOPES}, got {self.budget_scope!r}")
        given = [n for n in BUDGETS if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} contradict each other: give one of them")

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in fields(cls))

    def but(self, **changes) -> PruneOptions:
        """Returns a copy with some options changed; a new budget takes the place of an old one."""
        if any(changes.get(name) is not None for name in BUDGETS):
            changes = {**dict.fromkeys(BUDGETS), **changes}
        return replace(self, **changes)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 0


@dataclass(frozen=True)
class VisualLayout:
    """Places of the visual tokens of a batch. Tokens are numbered 0..N-1 over the batch, in row order.

    Args:
        grids: (height, width) of every image in merged tokens, in row order.
        rows: the prompt (row of the batch) of every image.
        num_prompts: B, prompts without images included.
        device: of the tensors made from it.
    """

    grids: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]
    num_prompts: int
    device: torch.device | str = "cpu"

    @property
    def image_sizes(self) -> list[int]:
        """Number of visual tokens of each image."""
        return [h * w for h, w in self.grids]

    @property
    def prompt_sizes(self) -> list[int]:
        """Number of visual tokens of each prompt, 0 for a text-only one."""
        sizes = [0] * self.num_prompts
        for row, size in zip(self.rows, self.image_sizes):
            sizes[row] += size
        return sizes

    @property
    def num_tokens(self) -> int:
        return sum(self.image_sizes)

    def group_sizes(self, scope: str) -> list[int]:
        """Sizes of the groups that share a budget: one per prompt, or one per image."""
        return self.prompt_sizes if scope == "prompt" else self.image_sizes

    def row_col(self) -> Tensor:
        """Row and column of every visual token in its own image's grid: [N, 2] int64."""
        parts = [
            torch.cartesian_prod(torch.arange(h, device=self.device), torch.arange(w, device=self.device)).view(-1, 2)
            for h, w in self.grids
        ]
        return torch.cat(parts) if parts else torch.empty(0, 2, dtype=torch.long, device=self.device)

    def split_by_image(self, values: Tensor) -> list[Tensor]:
        """Splits [N, ...] into one [h, w, ...] per image."""
        chunks = values.split(self.image_sizes)
        return [c.view(h, w, *values.shape[1:]) for c, (h, w) in zip(chunks, self.grids)]

    def split_by_prompt(self, values: Tensor) -> list[Tensor]:
        """Splits [N, ...] into one [V, ...] per prompt (empty for a text-only one)."""
        return list(values.split(self.prompt_sizes))


@dataclass(frozen=True)
class VisionAttention:
    """Attention of one vision block, per visual token, raster order.

    Args:
        received: [N] float32, attention that the token receives from [CLS] where the tower has one, else from all
            patches of its image; mean over heads and over the patches of the token.
        keys: [N, d] float32, the token's keys, mean over heads and over its patches.
    """

    received: Tensor
    keys: Tensor

    def ordered(self, order: Tensor) -> VisionAttention:
        """The same with the visual tokens in another order, int64 [N]."""
        return VisionAttention(self.received[order], self.keys[order])

    def to(self, device: torch.device) -> VisionAttention:
        """The same on a device."""
        return VisionAttention(self.received.to(device), self.keys.to(device))


@dataclass(frozen=True)
class ImageFeatures:
    """Output of the vision tower for a batch's images; can be shared by several prefills of the same batch.

    Args:
        embeds: [N, D], what the LLM sees.
        taps: vision layer -> its features [N, C], raster order.
        attention: vision block -> its attention.
        deepstack: decoder layer -> what the LLM adds to the visual tokens behind that layer, [N, D].
    """

    embeds: Tensor
    taps: dict[int, Tensor]
    attention: dict[int, VisionAttention] = field(default_factory=dict)
    deepstack: dict[int, Tensor] = field(default_factory=dict)

    def repeat(self, count: int) -> ImageFeatures:
        """The same for so many copies of the batch, one behind the other."""
        return ImageFeatures(
            self.embeds.repeat(count, 1),
            {k: value.repeat(count, 1) for k, value in self.taps.items()},
            {k: VisionAttention(a.received.repeat(count), a.keys.repeat(count, 1)) for k, a in self.attention.items()},
            {k: value.repeat(count, 1) for k, value in self.deepstack.items()},
        )

    def plus(self, other: ImageFeatures) -> ImageFeatures:
        """Features of the images of both, those of the other one last; what only one of them has is left out."""
        return ImageFeatures(
            torch.cat([self.embeds, other.embeds]),
            {k: torch.cat([value, other.taps[k]]) for k, value in self.taps.items() if k in other.taps},
            {
                k: VisionAttention(torch.cat([a.received, b.received]), torch.cat([a.keys, b.keys]))
                for k, a in self.attention.items()
                if (b := other.attention.get(k)) is not None
            },
            {k: torch.cat([value, other.deepstack[k]]) for k, value in self.deepstack.items() if k in other.deepstack},
        )

    def ordered(self, order: Tensor) -> ImageFeatures:
        """The same with the visual tokens in another order, int64 [N]."""
        return ImageFeatures(
            self.embeds[order],
            {k: value[order] for k, value in self.taps.items()},
            {k: look.ordered(order) for k, look in self.attention.items()},
            {k: value[order] for k, value in self.deepstack.items()},
        )

    def to(self, device: torch.device) -> ImageFeatures:
        """The same on a device."""
        return ImageFeatures(
            self.embeds.to(device),
            {k: value.to(device) for k, value in self.taps.items()},
            {k: look.to(device) for k, look in self.attention.items()},
            {k: value.to(device) for k, value in self.deepstack.items()},
        )

    def tapped(self, layers: Sequence[int]) -> list[Tensor]:
        """The features of some layers; ValueError if one was not tapped."""
        if missing := [k for k in layers if k not in self.taps]:
            raise ValueError(f"vision layers {missing} are wanted, but the given images have taps {sorted(self.taps)}")
        return [self.taps[k] for k in layers]

    def attended(self, blocks: Sequence[int]) -> dict[int, VisionAttention]:
        """The attention of some blocks; ValueError if one was not read."""
        if missing := [k for k in blocks if k not in self.attention]:
            raise ValueError(f"attention of vision blocks {missing} is wanted, but read was {sorted(self.attention)}")
        return {k: self.attention[k] for k in blocks}


@dataclass
class Prompt:
    """An embedded batch of prompts, as the decoder layers see it. S is the current (left-padded) length.

    Args:
        hidden: [B, S, D], input of the next decoder layer.
        attention_mask: [B, S] bool, False on padding.
        position_ids: [P, B, S] int64, the tokens' rotary positions as they came.
        visual_id: [B, S] int64, number of the visual token at each position, -1 for text and padding.
        layout: the images of the batch.
        taps: one [N, C] per tapped vision layer, raster order, in the order asked for.
        vision_attention: vision block -> its attention, of the blocks asked for.
        deepstack: decoder layer -> [N, D], added to the hidden states of the visual tokens behind that layer.
        lengths: real positions of each row, known to the host; counted in the mask, for which the host waits, if not
            given.
    """

    hidden: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    visual_id: Tensor
    layout: VisualLayout
    taps: list[Tensor] = field(default_factory=list)
    vision_attention: dict[int, VisionAttention] = field(default_factory=dict)
    deepstack: dict[int, Tensor] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lengths = self.lengths or self.attention_mask.sum(1).tolist()

    @property
    def has_padding(self) -> bool:
        """Tells if the mask has a False; the host knows without asking the device."""
        return min(self.lengths) < self.attention_mask.shape[1]

    @property
    def padding_mask(self) -> Tensor | None:
        """The attention mask, or None without padding: attention kernels have a faster path then."""
        return self.attention_mask if self.has_padding else None

    @property
    def is_visual(self) -> Tensor:
        """True at the visual tokens, [B, S] bool."""
        return self.visual_id >= 0

    def gather_visual(self, values: Tensor, filling: float) -> Tensor:
        """Takes what stands at the visual tokens: [B, S, ...] -> [N, ...], `filling` for tokens that are gone.

        What comes from a layer on another device comes home.
        """
        # -1 (not visual) -> one slot too many: no host has to count them
        slots = self.visual_id.flatten() % (self.layout.num_tokens + 1)
        out = values.new_full((self.layout.num_tokens + 1, *values.shape[2:]), filling)
        out = out.index_copy(0, slots.to(values.device), values.flatten(0, 1))[:-1]
        return out.to(self.visual_id.device)

    def spread_visual(self, values: Tensor) -> Tensor:
        """Puts values of the visual tokens in their places: [N, ...] -> [B, S, ...]; other places hold anything."""
        return values[self.visual_id.clamp(min=0).to(values.device)]

    def next_positions(self, count: int) -> Tensor:
        """Rotary positions of `count` tokens behind the prompt, [P, B, count] int64.

        All axes go on alike, behind the greatest number: an image at the end counts on three axes. Dropped tokens keep
        their numbers.
        """
        steps = torch.arange(1, count + 1, device=self.position_ids.device)
        last = self.position_ids[:, :, -1:].amax(0)  # [B, 1]
        return (last + steps).expand(self.position_ids.shape[0], -1, -1)

    def append(self, vectors: Tensor) -> None:
        """Appends tokens with the embeddings [T, D] to every row."""
        batch, count = self.hidden.shape[0], vectors.shape[0]
        self.position_ids = torch.cat([self.position_ids, self.next_positions(count)], dim=2)
        self.hidden = torch.cat([self.hidden, vectors.expand(batch, -1, -1)], dim=1)
        self.attention_mask = torch.cat([self.attention_mask, self.attention_mask.new_ones(batch, count)], dim=1)
        self.visual_id = torch.cat([self.visual_id, self.visual_id.new_full((batch, count), -1)], dim=1)
        self.lengths = [length + count for length in self.lengths]
