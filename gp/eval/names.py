"""Checks what can be known of an evaluation before a model is loaded: names of methods, names and types of settings."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, get_type_hints

from gp.config import EvalConfig
from gp.config.fitting import fit, nearest
from gp.config.option import Rule
from gp.pruners import (
    BASELINES,
    ZOOM_OF,
    GlimpsePruner,
    NoPruner,
    OraclePruner,
    Pruner,
    RandomPruner,
    RankingPruner,
    Zoom,
    find_class,
    method_names,
)
from gp.pruners import check_settings as check_settings_of

ALL = "all"


def known_pruners() -> list[str]:
    """The names that `all` stands for, in the order of the table."""
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
    for name in names:
        if needs_glimpse(name):
            raise ValueError(f"eval.pruners: {name} needs trained parts, give ckpt=PATH or name other pruners")
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
            _check_outside(name, known)
    return list(dict.fromkeys([*(known if ALL in pruners else ()), *(name for name in pruners if name != ALL)]))


def _check_outside(name: str, known: Sequence[str]) -> None:
    """A method that `all` does not name: `zoom`, `zoom(METHOD)`, of another package, `package.module:Class`."""
    if looks := ZOOM_OF.fullmatch(name):
        name = looks[1]
    if ":" not in name and name not in method_names():
        near = nearest(name, [ALL, *known, *method_names()])
        raise ValueError(f"eval.pruners: unknown pruner {name!r}; the nearest known one is {near!r}")
    try:
        find_class(name)
    except ValueError as error:
        raise ValueError(f"eval.pruners: {error}") from error


def place_of(name: str) -> int:
    """Where a method stands in tables and which colour it has: those that are not known come last."""
    known = [*known_pruners(), Zoom.name]
    return known.index(name) if name in known else len(known)


def only_ranks(name: str) -> bool:
    """Whether a method needs a budget."""
    return issubclass(_deciding(name), RankingPruner)


def needs_glimpse(name: str) -> bool:
    """Whether a method needs trained parts."""
    return _deciding(name) is GlimpsePruner


def _deciding(name: str) -> type[Pruner]:
    """The class that decides which tokens stay: of `zoom(METHOD)`, that method's."""
    looks = ZOOM_OF.fullmatch(name)
    return GlimpsePruner if name == Zoom.name else find_class(looks[1] if looks else name)


def check_settings(method: str, settings: dict[str, Any]) -> None:
    """Refuses settings of a method that does not exist, or that it does not take."""
    key = f"eval.methods.{method}"
    if method == GlimpsePruner.name:
        raise ValueError(f"{key}: it is as it was trained; its decision follows the section prune")
    try:
        pruner = check_settings_of(method, settings)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    hints = {**get_type_hints(inspect.unwrap(pruner.__init__)), **get_type_hints(pruner.for_model)}
    for name, value in settings.items():
        fit(value, hints.get(name, Any), Rule(""), f"{key}.{name}")
