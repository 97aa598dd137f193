"""Rows of an evaluation, in their order, and the pruning options of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gp.eval.names import check_pruners, check_settings, needs_glimpse, only_ranks, place_of
from gp.model import GlimpseModel
from gp.pruners import GlimpsePruner, NoPruner, OraclePruner, Zoom, make_baseline
from gp.types import PruneOptions

# One row whatever the budgets: these keep what they keep.
WITHOUT_BUDGET = (NoPruner.name, OraclePruner.name)
NEARLY_NOTHING = 1e-6  # a budget that stands for "one token": what glimpse may have kept of a prompt


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Args:
        pruner: a pruner's name.
        budget: share of visual entries in the KV cache, in (0, 1]; None: the method's own decision.
        matched: the method only ranks and has no budget: each prompt's budget is what `glimpse` kept of it.
        threshold: of the method's own decision; None: the model's.
    """

    pruner: str
    budget: float | None = None
    matched: bool = False
    threshold: float | None = None

    @property
    def label(self) -> str:
        """Short and unique within an evaluation, e.g. `glimpse-own`, `random-0.111`; used in file names."""
        own = "own" if self.threshold is None else f"t{self.threshold:g}"
        return f"{self.pruner}-{own if self.budget is None else format(self.budget, 'g')}"


UNPRUNED = Method(NoPruner.name)
OWN_GLIMPSE = Method(GlimpsePruner.name)


@dataclass(frozen=True)
class LeftOut:
    """A row that was asked for but cannot be run on this base, and why."""

    method: Method
    reason: str


def plan_rows(
    model: GlimpseModel, pruners: Sequence[str], budgets: Sequence[float | None], thresholds: Sequence[float] = ()
) -> tuple[list[Method], list[LeftOut]]:
    """Rows to run, those first that others are compared with or matched to; and rows that cannot be run.

    `none` is always run, because every row states the accuracy without pruning; so is `glimpse`'s own decision if a
    row is matched to it. Whatever is run is reported. A method that cannot meet a budget on this base, e.g. because
    it leaves the caches of its first layers alone, is left out at that budget.

    Args:
        model: its base and its `pruner_settings` decide which budgets a method can meet.
        pruners: names, or `all`.
        budgets: see `Method`; None: the method's own decision.
        thresholds: one more row of `glimpse` for each.

    Raises:
        ValueError: an unknown name, settings that a method does not take, nothing to run, or `glimpse` on a model
            without trained parts.
    """
    names = check_pruners(pruners)
    if not budgets:
        raise ValueError("eval.budgets is empty: give kept ratios, or null for the method's own decision")
    _check_settings(model)
    ordered = sorted(names, key=place_of)
    wanted = [UNPRUNED, *(method for name in ordered for method in _rows(name, budgets, thresholds))]
    if model.glimpse is None and any(method.matched or needs_glimpse(method.pruner) for method in wanted):
        raise ValueError("eval.pruners: this model has no trained glimpse; name other pruners and give eval.budgets")
    reasons = {method: _why_not(model, method) for method in wanted}
    methods = [method for method, reason in reasons.items() if reason is None]
    left_out = [LeftOut(method, reason) for method, reason in reasons.items() if reason is not None]
    if left_out and methods == [UNPRUNED]:
        every = "; ".join(f"{one.method.label}: {one.reason}" for one in left_out)
        raise ValueError(f"eval.pruners: none of the rows can be run on this base ({every})")
    if any(method.matched for method in methods):
        methods.insert(1, OWN_GLIMPSE)
    return list(dict.fromkeys(methods)), left_out


def find_reference(methods: Sequence[Method], name: str) -> Method:
    """The row that every other one is compared with.

    Args:
        methods: rows that are run.
        name: a row's label, or a pruner's name: its first row.

    Raises:
        ValueError: no such row.
    """
    by_name = {method.pruner: method for method in reversed(methods)} | {method.label: method for method in methods}
    if name not in by_name:
        labels = ", ".join(method.label for method in methods)
        raise ValueError(f"eval.reference: no row {name!r} to compare with, there are {labels}")
    return by_name[name]


def options_of(method: Method, default: PruneOptions, num_keep: Sequence[int] | None = None) -> PruneOptions:
    """The pruning options of a row.

    A method's own decision follows `default`. A budget replaces every other budget. `oracle` keeps exactly the
    evidence, and a matched method exactly `num_keep`: minimum and anchors of `default` would blur both.

    Args:
        method: the row.
        default: the model's options.
        num_keep: of a matched method: tokens to keep of every prompt of the batch.
    """
    if method.matched:
        return PruneOptions(num_keep=tuple(num_keep), min_kept=0)
    if method.pruner == OraclePruner.name:
        return PruneOptions()
    if method.threshold is not None:
        return default.but(threshold=method.threshold)
    return default if method.budget is None else default.but(fixed_keep_ratio=method.budget)


def _rows(name: str, budgets: Sequence[float | None], thresholds: Sequence[float]) -> list[Method]:
    """The rows of one pruner."""
    wanted = (None,) if name in WITHOUT_BUDGET else budgets
    rows = [Method(name, budget, matched=budget is None and only_ranks(name)) for budget in wanted]
    own = thresholds if name == GlimpsePruner.name else ()
    return [*rows, *(Method(name, threshold=threshold) for threshold in own)]


def _why_not(model: GlimpseModel, method: Method) -> str | None:
    """Reason why a row cannot be run; None if it can.

    A matched row's budgets are known only when `glimpse` has run, and may be as little as one token of a prompt: a
    method that cannot go so low could not finish.
    """
    tried = Method(method.pruner, NEARLY_NOTHING) if method.matched else method
    try:
        pruner = model.find_pruner(method.pruner)
        pruner.check(options_of(tried, model.options), model.backbone.num_layers)
    except ValueError as error:
        return f"cannot keep as little as glimpse may: {error}" if method.matched else str(error)
    if method.matched and pruner.sees_own_images and model.backbone.one_image_size:
        return "images of a batch have one size on this base: they cannot be made smaller for each prompt on its own"
    return None


def _check_settings(model: GlimpseModel) -> None:
    """Refuses settings of methods that do not exist or do not take them."""
    for name, settings in model.pruner_settings.items():
        check_settings(name, settings)
        try:
            if name == Zoom.name:
                of_any = settings if model.glimpse is not None or "of" in settings else {**settings, "of": "random"}
                model.find_pruner(Zoom.name, of_any)
            else:
                make_baseline(name, model.backbone, settings=settings)
        except (ValueError, TypeError) as error:
            raise ValueError(f"eval.methods.{name}: {error}") from error
