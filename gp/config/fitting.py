"""Holds plain values, as they come from YAML, to the type and rule of an option."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from gp.config.option import Rule

LISTS, MAPPINGS = (list, Sequence), (dict, Mapping)
LARGEST_INT = 2**63 - 1  # of torch; YAML knows no limit
SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


def fit(value: Any, hint: Any, rule: Rule, key: str) -> Any:
    """A plain value as an option has it.

    Args:
        value: from YAML: None, a bool, a number, text, a list or a mapping of those.
        hint: the option's type: bool, int, float, str, and unions, lists and mappings of them; of any other type, only
            that numbers are finite is checked.
        rule: of the option.
        key: where the value stands, for messages.

    Raises:
        ValueError: names key, what was expected and what came.
    """
    kinds = _alternatives(hint)
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        if get_origin(kind) in LISTS and isinstance(value, list):
            entries = [fit(entry, get_args(kind)[0], rule, f"{key}[{i}]") for i, entry in enumerate(value)]
            return _counted(entries, hint, rule, key)
        if get_origin(kind) in MAPPINGS and isinstance(value, dict):
            inner = get_args(kind)[1]
            named = {str(name): fit(entry, inner, rule, f"{key}.{name}") for name, entry in value.items()}
            return _counted(named, hint, rule, key)
        if kind not in SCALARS and get_origin(kind) not in (*LISTS, *MAPPINGS):
            return _finite(value, key)
        if kind in SCALARS and (fitted := _scalar(value, kind)) is not None and _taken(fitted, rule):
            return fitted
    raise _refusal(value, hint, rule, key)


def describe(hint: Any, rule: Rule) -> str:
    """Describes the values that an option takes, e.g. "null or a number in (0, 1]"."""
    if rule.choices and str in _alternatives(hint):
        words = [f"one of {', '.join(rule.choices)}"]
    else:
        words = [_describe(kind, rule) for kind in _alternatives(hint) if kind is not type(None)]
    return " or ".join([*(["null"] if type(None) in _alternatives(hint) else []), *words])


def nearest(given: Any, known: Sequence[str]) -> str:
    """The known name that is most like the given one."""
    return difflib.get_close_matches(str(given), known, n=1, cutoff=0.0)[0]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _scalar(value: Any, kind: type) -> Any:
    """The value as bool, int, float or str; None if it is none. Text may be a number: the environment gives text."""
    if kind is bool:
        return bool(value) if value in (0, 1) else None
    if kind is type(None) or isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float) and (kind is int or (kind is str and not math.isfinite(value))):
        return None
    try:
        fitted = kind(value)
    except (ValueError, OverflowError):
        return None
    return None if kind is int and abs(fitted) > LARGEST_INT else fitted


def _taken(value: Any, rule: Rule) -> bool:
    if isinstance(value, str):
        return bool(value.strip()) and (not rule.choices or value in rule.choices)
    return isinstance(value, bool) or value in rule.within


def _counted(entries: list | dict, hint: Any, rule: Rule, key: str) -> list | dict:
    if len(entries) not in rule.length:
        raise ValueError(f"{key} must be {describe(hint, rule)}, got {len(entries)} entries: {entries!r:.200}")
    if rule.distinct and any(entries.count(entry) > 1 for entry in entries):
        raise ValueError(f"{key} must not name anything twice, got {entries}")
    return entries


def _finite(value: Any, key: str) -> Any:
    """Refuses NaN and infinity anywhere inside."""
    if isinstance(value, list | dict):
        for name, entry in value.items() if isinstance(value, dict) else enumerate(value):
            _finite(entry, f"{key}.{name}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key} must be finite, got {value}")
    return value


def _refusal(value: Any, hint: Any, rule: Rule, key: str) -> ValueError:
    near = ""
    if rule.choices and isinstance(value, str) and value and value not in rule.choices:
        near = f"; the nearest known one is {nearest(value, rule.choices)!r}"
    return ValueError(f"{key} must be {describe(hint, rule)}, got {value!r:.200}{near}")


def _describe(kind: Any, rule: Rule) -> str:
    if get_origin(kind) in (*LISTS, *MAPPINGS):
        inner = describe(get_args(kind)[-1], rule)
        number = "" if str(rule.length) == "0 or more" else f" of {rule.length}"
        return (
            f"a list{number}, each {inner}" if get_origin(kind) in LISTS else f"a mapping{number}, each value {inner}"
        )
    if kind in (int, float):
        within = str(rule.within)
        return SCALARS[kind] + (f" {within}" if within.startswith("in") else f", {within}" if within else "")
    return SCALARS.get(kind, "anything")
