"""Which rows an evaluation has, in which order, and the pruning options of each."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from gp.model import GlimpseModel
from gp.pruners import BASELINES, GlimpsePruner, NoPruner, OraclePruner, RankingPruner
from gp.types import PruneOptions

ALL = "all"
# One row whatever the budgets: these keep what they keep.
WITHOUT_BUDGET = (NoPruner.name, OraclePruner.name)


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Args:
        pruner: a pruner's name.
        budget: kept ratio in (0, 1]; None: the method's own decision.
        matched: the method only ranks and has no budget: it keeps as many tokens of every prompt as `glimpse` did.
    """

    pruner: str
    budget: float | None = None
    matched: bool = False

    @property
    def label(self) -> str:
        """Short and unique within an evaluation, e.g. `glimpse-own`, `random-0.111`; used in file names."""
        return f"{self.pruner}-{'own' if self.budget is None else format(self.budget, 'g')}"


UNPRUNED = Method(NoPruner.name)
OWN_GLIMPSE = Method(GlimpsePruner.name)


def known_pruners() -> list[str]:
    """The names that `eval.pruners` may hold, in the order of the table."""
    others = [name for name in BASELINES if name not in WITHOUT_BUDGET]
    return [NoPruner.name, GlimpsePruner.name, *others, OraclePruner.name]


def plan(model: GlimpseModel, pruners: Sequence[str], budgets: Sequence[float | None]) -> list[Method]:
    """The rows to run, those first that others are compared with or matched to.

    `none` is always run, because every row states the accuracy without pruning; so is `glimpse`'s own decision if a
    row is matched to it. Whatever is run is reported.

    Args:
        model: decides which methods only rank.
        pruners: names, or `all`.
        budgets: kept ratios; None: the method's own decision.

    Raises:
        ValueError: an unknown name, nothing to run, or `glimpse` on a model without trained parts.
    """
    names = _check_names(pruners)
    if not budgets:
        raise ValueError("eval.budgets is empty: give kept ratios, or null for the method's own decision")
    methods = [UNPRUNED]
    for name in sorted(names, key=known_pruners().index):
        own_only = name in WITHOUT_BUDGET
        for budget in (None,) if own_only else budgets:
            methods.append(Method(name, budget, matched=budget is None and _only_ranks(model, name)))
    if any(method.matched for method in methods):
        methods.insert(1, OWN_GLIMPSE)
    if model.glimpse is None and any(method.pruner == GlimpsePruner.name for method in methods):
        raise ValueError("eval.pruners: this model has no trained glimpse; name other pruners and give eval.budgets")
    return list(dict.fromkeys(methods))


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
    return default if method.budget is None else default.but(fixed_keep_ratio=method.budget)


def _only_ranks(model: GlimpseModel, name: str) -> bool:
    """Whether the method refuses to work without a budget."""
    return name != GlimpsePruner.name and isinstance(model.find_pruner(name), RankingPruner)


def _check_names(pruners: Sequence[str]) -> list[str]:
    known = known_pruners()
    if not pruners:
        raise ValueError(f"eval.pruners is empty: name some of {', '.join(known)}, or {ALL}")
    for name in pruners:
        if name not in (ALL, *known):
            nearest = difflib.get_close_matches(name, [ALL, *known], n=1, cutoff=0.0)[0]
            raise ValueError(f"eval.pruners: unknown pruner {name!r}; the nearest known one is {nearest!r}")
    return known if ALL in pruners else list(dict.fromkeys(pruners))
