"""Base of the pruning methods: where a method looks, and one score per visual token. It owns no plumbing."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gp.backbones import Backbone
from gp.backbones.cropping import Crop
from gp.backbones.twig import Twig
from gp.pruners.budget import mean_tokens
from gp.selection import Group, Options, groups_of, of_prompts, select, whole_tokens
from gp.types import Prompt, PruneOptions, VisualLayout

BEFORE_FIRST_LAYER = -1


@dataclass
class PruneView:
    """Batch as the engine shows it to a pruner at one of its stages. Letters of shapes: `gp.types`.

    Args:
        stage: the decoder layer that has just run, or `BEFORE_FIRST_LAYER`.
        num_layers: decoder layers of the model.
        prompt: the batch at this point (input of the next layer, vision taps, attention of vision blocks); for a method
            without `needs_hidden` its hidden states may still be the input of this one.
        options: the call's options, one per prompt if they differ.
        attention: read layer -> [N, H], attention of the last position (the glimpse token, if the pruner appends
            one) to every visual token; -inf for tokens that an earlier stage dropped.
        alive: [N] bool, tokens that no earlier stage dropped.
        evidence_masks: one bool or 0..1 [h, w] per image, if the caller gave them.
        seed: for methods that draw; the same seed draws the same. One for the batch, or one per prompt.
        look_ahead: called with `rotate`: log-softmax attention [N, H] of the last position to every visual token with
            the projections of the *next* layer, with or without rotary embedding; -inf for dropped tokens.
        full: the images as they came; None where the method leaves them as they are.
        backbone: of the base, for methods that look closer.
        notes: what a method leaves in this prefill for its own later calls, and for whoever reads
            `gp.engine.prefill.Prefill.notes`.
    """

    stage: int
    num_layers: int
    prompt: Prompt
    options: Options
    alive: Tensor
    attention: dict[int, Tensor] = field(default_factory=dict)
    evidence_masks: Sequence[Tensor] | None = None
    seed: int | Sequence[int] = 0
    look_ahead: Callable[[bool], Tensor] = None  # type: ignore[assignment]  # the engine always gives it
    full: VisualLayout | None = None
    backbone: Backbone | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def layout(self) -> VisualLayout:
        return self.prompt.layout

    def groups(self) -> list[Group]:
        """The groups that share a budget, in the order of their tokens."""
        return groups_of(self.layout, self.options)

    def visual_hidden(self) -> Tensor:
        """Hidden states of all visual tokens, [N, D]; zeros for tokens that an earlier stage dropped."""
        return self.prompt.gather_visual(self.prompt.hidden, 0.0)


@dataclass(frozen=True)
class Closer:
    """Further images of a batch, which a method wants to be seen behind the last of its stages.

    Args:
        crops: in the order of the images that they are parts of.
        sizes: (height, width) of each in visual tokens of its own.
        pixels: their image tensors, as `Backbone.see` takes them.
        wanted: bool over all their tokens in order: those that go to the decoder.
    """

    crops: tuple[Crop, ...]
    sizes: tuple[tuple[int, int], ...]
    pixels: Mapping[str, Tensor]
    wanted: Tensor


class Pruner(nn.Module):
    """Base of all methods. A method states its attributes and implements `scores`.

    Attributes:
        name: what users write in `pruner=...`.
        paper: arXiv number, if there is one.
        stages: decoder layers after which tokens are dropped (`BEFORE_FIRST_LAYER`: before any); empty: never.
        read_layers: decoder layers whose attention row of the last position is wanted.
        log_softmax: whether that row is normalised over all visible keys.
        taps: vision layers whose features are wanted.
        attended: vision blocks whose attention is wanted.
        compact_cache: whether the layers up to a stage forget the dropped tokens, too. Published methods that prune
            inside the LLM leave them there.
        sees_own_images: whether `prepare` changes the images, so that features of others cannot be shared.
        looks_closer: whether `look_closer` may ask for further images behind the last stage.
        infinite_scores: whether a score may be infinite; else it shows numbers that went wrong, as NaN always does.
        decides_itself: whether `keep` is the method's own, so that even an exact budget does not tell how many stay.
        needs_hidden: whether the method looks at hidden states (`PruneView.prompt`, `visual_hidden`, `look_ahead`). If
            not, it decides before the rest of a stage's layer runs, on what stays.
    """

    name: ClassVar[str]
    paper: ClassVar[str | None] = None
    stages: tuple[int, ...] = ()
    read_layers: tuple[int, ...] = ()
    log_softmax: bool = False
    taps: tuple[int, ...] = ()
    attended: tuple[int, ...] = ()
    compact_cache: bool = True
    sees_own_images: ClassVar[bool] = False
    looks_closer: bool = False
    infinite_scores: bool = False
    decides_itself: bool = False
    needs_hidden: bool = True

    @classmethod
    def for_model(cls, backbone: Backbone, prune_layer: int, **settings: Any) -> Pruner:
        """Builds the method for a base.

        Args:
            backbone: tells sizes and layers.
            prune_layer: where methods that drop at one free choice of layer do so.
            settings: of the constructor.
        """
        return cls(**settings)

    @classmethod
    def settings(cls) -> list[str]:
        """Names of the settings that `for_model` takes."""
        parameters = inspect.signature(cls.for_model).parameters.values()
        own = inspect.signature(cls).parameters if any(p.kind is p.VAR_KEYWORD for p in parameters) else {}
        named = [p.name for p in (*parameters, *own.values()) if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        return [name for name in named if name not in ("backbone", "prune_layer")]

    def prepare(self, backbone: Backbone, inputs: Mapping[str, Tensor], options: Options) -> Mapping[str, Tensor]:
        """Returns the inputs that the model sees instead; only for methods that change the images."""
        return inputs

    def tokens(self) -> dict[int, Tensor]:
        """Decoder layer -> vectors [T, D]: those of layer 0 are appended to the prompt, later ones added there."""
        return {}

    def own_layers(self) -> Twig | None:
        """Layers of its own, which prompt and own tokens run through before its only stage; `read_layers` may then
        name layers that have a copy there, too. None: none.
        """
        return None

    @abstractmethod
    def scores(self, view: PruneView) -> Tensor:
        """Importance logits of all visual tokens, [N] float32; sigmoid(score) is compared with the threshold."""

    def stage_options(self, view: PruneView) -> Options:
        """Options of the call as they apply at this stage."""
        return view.options

    def keep(self, scores: Tensor, view: PruneView) -> Tensor:
        """Keep mask [N] from the scores; what earlier stages dropped stays dropped. Another one: `decides_itself`."""
        scores = scores.masked_fill(~view.alive, float("-inf"))
        return select(scores, view.layout, self.stage_options(view)) & view.alive

    def merge(self, view: PruneView, keep_mask: Tensor) -> Tensor | None:
        """New hidden states [N, D] of the visual tokens, e.g. kept ones that took dropped ones in; None: unchanged."""
        return None

    def look_closer(
        self, backbone: Backbone, inputs: Mapping[str, Tensor], layout: VisualLayout, notes: Mapping[str, Any]
    ) -> Closer | None:
        """Images to be seen behind the last stage; None: no more.

        Args:
            backbone: of the base.
            inputs: as they came, before `prepare`.
            layout: of the images that were seen.
            notes: of this prefill, see `PruneView`.
        """
        return None

    def check(self, options: PruneOptions, num_layers: int) -> None:
        """Raises ValueError if the method cannot work with these options on a model of so many decoder layers."""
        for attribute, first in (("stages", BEFORE_FIRST_LAYER), ("read_layers", 0)):
            if outside := [layer for layer in getattr(self, attribute) if not first <= layer < num_layers]:
                raise ValueError(
                    f"pruner {self.name!r}: {attribute} {outside} outside {first}..{num_layers - 1}, "
                    "the decoder layers of this base"
                )


class AtPruneLayer(Pruner):
    """A method that drops its tokens at a freely chosen layer, as `glimpse` does.

    Args:
        prune_layer: decoder layer after which tokens are dropped, `BEFORE_FIRST_LAYER` for before any.
    """

    def __init__(self, prune_layer: int = BEFORE_FIRST_LAYER) -> None:
        super().__init__()
        self.stages = (prune_layer,)

    @classmethod
    def for_model(cls, backbone: Backbone, prune_layer: int) -> Pruner:
        return cls(prune_layer)


class RankingPruner(Pruner):
    """A method whose scores are only a ranking: it needs a budget and meets it exactly.

    The budget is the share of visual entries in the KV cache after prefill, mean over layers. For a method that
    compacts the cache that is the share of tokens kept in the end; for one that leaves earlier layers alone it is the
    mean over layers of the tokens that each layer worked on.
    """

    def stage_options(self, view: PruneView) -> list[PruneOptions]:
        counts: list[list[int]] = [[] for _ in range(view.layout.num_prompts)]
        for group, count in zip(view.groups(), self.counts(view), strict=True):
            counts[group.prompt].append(count)
        rows = of_prompts(view.options, view.layout)
        return [one.but(num_keep=tuple(own)) for one, own in zip(rows, counts, strict=True)]

    def counts(self, view: PruneView) -> list[int]:
        """Tokens that each group (prompt, or image, by `budget_scope`) keeps after this stage."""
        return [self.count_after(view.stage, g.size, mean_tokens(g), view.num_layers) for g in view.groups()]

    def count_after(self, stage: int, size: int, mean: float, num_layers: int) -> int:
        """Tokens of a group to keep after a stage.

        Args:
            stage: as in `stages`.
            size: visual tokens of the group.
            mean: tokens that the budget allows, mean over layers.
            num_layers: decoder layers.
        """
        if size == 0:
            return 0
        return whole_tokens(self.shares(mean / size, num_layers)[self.stages.index(stage)], size)

    def shares(self, budget: float, num_layers: int) -> list[float]:
        """Share of the original tokens left after each stage for a budget in (0, 1]; here of a single stage.

        Raises:
            ValueError: the budget cannot be met.
        """
        if self.compact_cache:
            return [budget]
        full = self.stages[0] + 1
        self.refuse_below(full / num_layers, budget, num_layers)
        return [(budget * num_layers - full) / (num_layers - full)]

    def refuse_below(self, floor: float, budget: float, num_layers: int) -> None:
        """Raises ValueError unless the budget is above the share that the layers before the first stage hold."""
        if budget <= floor:
            raise ValueError(
                f"pruner {self.name!r}: a budget of {budget:.3g} cannot be met: after layers {list(self.stages)} of "
                f"{num_layers} the untouched layers alone hold {floor:.3g} of the visual tokens; give more, or "
                "compact_cache=True"
            )

    def check(self, options: PruneOptions, num_layers: int) -> None:
        super().check(options, num_layers)
        if all(given is None for given in (options.max_keep_ratio, options.fixed_keep_ratio, options.num_keep)):
            raise ValueError(
                f"pruner {self.name!r} only ranks tokens: give fixed_keep_ratio, max_keep_ratio or num_keep"
            )
        if options.num_keep is None:
            budget: Any = options.fixed_keep_ratio or options.max_keep_ratio  # one of them, as checked above
            self.shares(budget, num_layers)


def flat_evidence(view: PruneView) -> Tensor:
    """The caller's evidence masks as one [N] float32, checked against the images."""
    masks = view.evidence_masks
    if masks is None:
        raise ValueError("this pruner needs evidence_masks: one [h, w] mask per image")
    given = [tuple(m.shape) for m in masks]
    if given != list(view.layout.grids):
        raise ValueError(f"evidence_masks have shapes {given}, but the images have {list(view.layout.grids)} tokens")
    return torch.cat([m.flatten() for m in masks]).float().to(view.alive.device, non_blocking=True)
