"""Checks what can be known of an evaluation before a model is loaded: names of methods, names and types of settings."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, get_type_hints

from gp.config import EvalConfig
from gp.config.fitting import fit, nearest
from gp.config.option import Rule
from gp.pruners import BASELINES, GlimpsePruner, NoPruner, OraclePruner, RandomPruner, find_baseline

ALL = "all"


def known_pruners() -> list[str]:
    """The names that `eval.pruners` may hold, in the order of the table."""
    last = [RandomPruner.name, OraclePruner.name]
    others = [name for name in BASELINES if name not in (NoPruner.name, *last)]
    return [NoPruner.name, GlimpsePruner.name, *others, *last]


def check_names(evaluation: EvalConfig) -> None:
    """Checks `eval.pruners` and `eval.methods`.

    Raises:
        ValueError: a method or setting that does not exist, or a value of another type than the setting's.
    """
    check_pruners(evaluation.pruners)
    for method, settings in evaluation.methods.items():
        check_settings(method, settings)


def check_without_glimpse(evaluation: EvalConfig) -> None:
    """ValueError for rows that need trained parts: `glimpse`, and methods without a budget, which are matched to it."""
    names = check_pruners(evaluation.pruners)
    if GlimpsePruner.name in names:
        raise ValueError(
            f"eval.pruners: {GlimpsePruner.name} needs trained parts, give ckpt=PATH or name other pruners"
        )
    ranks = [name for name in names if name not in (NoPruner.name, OraclePruner.name)]
    if ranks and None in evaluation.budgets:
        raise ValueError(f"eval.budgets: {ranks[0]} needs a budget where there are no trained parts, e.g. budget=0.2")


def check_pruners(pruners: Sequence[str]) -> list[str]:
    """The methods that `eval.pruners` names, each once; ValueError for none, or one that does not exist."""
    known = known_pruners()
    if not pruners:
        raise ValueError(f"eval.pruners is empty: name some of {', '.join(known)}, or {ALL}")
    for name in pruners:
        if name not in (ALL, *known):
            near = nearest(name, [ALL, *known])
            raise ValueError(f"eval.pruners: unknown pruner {name!r}; the nearest known one is {near!r}")
    return known if ALL in pruners else list(dict.fromkeys(pruners))


def check_settings(method: str, settings: dict[str, Any]) -> None:
    """Refuses settings of a method that does not exist, or that it does not take."""
    key = f"eval.methods.{method}"
    if method == GlimpsePruner.name:
        raise ValueError(f"{key}: it is as it was trained; its decision follows the section prune")
    try:
        pruner = find_baseline(method, settings)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    hints = {**get_type_hints(inspect.unwrap(pruner.__init__)), **get_type_hints(pruner.for_model)}
    for name, value in settings.items():
        fit(value, hints.get(name, Any), Rule(""), f"{key}.{name}")
