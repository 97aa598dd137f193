"""Seeded settings that nobody would write, as texts of a command line, and the table's own idea of which are sound."""

from __future__ import annotations

import json
import math
import random
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from gp.config.option import rule_of
from gp.config.table import Option, options_of
from tests.support.mutations import NASTY

TEXTS = (
    "", " ", "null", "~", ".nan", "-.inf", ".inf", "nan", "inf", "1e400", "-0", "0x10", "1_000", "1e-400", "007", "1,2",
    "[", "]", "{", "{}", "[]", "[[]]", "[null]", "[,]", "{a: 1}", "[a,a]", "'", '"', "!!python/none", "*a",
    "a: b", "a=b", "=", "${x}", "${name}", "${oc.env:NOWHERE}", "???", "yes", "off", "2026-11-28", "1:30", "#", "-",
    "\u00fcber", "\U0001f600", "\u202e", "tiny", "all", "auto", "last", "-1", "-0.5", "0", "1", "1e9", "99999999999",
)  # fmt: skip


def given(options: list[Option], rng: random.Random) -> list[str]:
    """One to three `key=value`s: nasty values, sound ones at the edge, misspelt and misplaced keys."""
    return [_one(rng.choice(options), options, rng) for _ in range(rng.choice((1, 1, 2, 3)))]


def _one(option: Option, options: list[Option], rng: random.Random) -> str:
    key, kind = option.key, rng.randrange(12)
    if kind == 0:
        place = rng.randrange(len(key))
        key = key[:place] + rng.choice(("", ".", "x", " ", "\u00e9", key[place] * 2)) + key[place + 1 :]
    elif kind == 1:
        key = rng.choice((key.partition(".")[0], f"{key}.x", f"{key}.0", f"x.{key}", rng.choice(options).key))
    return f"{key}={_value(option, rng)}"


def _value(option: Option, rng: random.Random) -> str:
    kind = rng.randrange(12)
    if kind < 3:
        return rng.choice(TEXTS)
    value = rng.choice(NASTY) if kind < 5 else _near(option, rng)
    if kind == 5:
        value = rng.choice(([value], [value, value], {"a": value}, [[value]], str(value)))
    return json.dumps(value, ensure_ascii=False).replace("NaN", ".nan").replace("Infinity", ".inf")


def _near(option: Option, rng: random.Random) -> Any:
    """A value of the option's kind: the default, a choice, or a number at an edge of its range."""
    ends = [float(end) for end in option.rule.within.text[1:-1].split(",")]
    edges = [end for end in ends if math.isfinite(end)] or [0.0]
    numbers = [int(edges[0]), int(edges[-1]) + 1, int(edges[0]) - 1, edges[-1] + 1e-9, edges[0] + 0.25, 3]
    default = None if option.default == "???" else option.default
    kinds = [[default], [*option.rule.choices] or [True, False], numbers]
    return rng.choice(kinds[rng.randrange(3)])


def nonsense(config: Any, where: str = "") -> list[str]:
    """Keys of a config whose values are not of the documented type, in the documented range, finite and not empty.

    Written from the definition, apart from the code that reads settings.
    """
    found, hints = [], get_type_hints(type(config))
    for one in fields(config):
        value, key = getattr(config, one.name), f"{where}{one.name}"
        if is_dataclass(value):
            found += nonsense(value, f"{key}.")
        elif not _is_sound(value, hints[one.name], rule_of(one)):
            found.append(f"{key}={value!r}")
    return found


def _is_sound(value: Any, hint: Any, rule: Any) -> bool:
    kinds = get_args(hint) if get_origin(hint) not in (None, list, dict) else (hint,)
    return any(_is_of(value, kind, rule) for kind in kinds)


def _is_of(value: Any, kind: Any, rule: Any) -> bool:
    if kind is type(None):
        return value is None
    if kind is Any:
        return "nan" not in repr(value) and "inf" not in repr(value)
    if get_origin(kind) in (list, dict):
        if not isinstance(value, get_origin(kind)):
            return False
        inner, entries = get_args(kind)[-1], list(value.values() if isinstance(value, dict) else value)
        if rule.distinct and len({*map(repr, entries)}) < len(entries):
            return False
        return _between(len(entries), rule.length.text) and all(_is_sound(entry, inner, rule) for entry in entries)
    if kind in (bool, str):
        is_listed = kind is bool or (value and (not rule.choices or value in rule.choices))
        return type(value) is kind and bool(is_listed or kind is bool)
    if type(value) is int and abs(value) >= 2**63:
        return False
    return type(value) is kind and math.isfinite(value) and _between(value, rule.within.text)


def _between(value: float, text: str) -> bool:
    low, high = map(float, text[1:-1].split(","))
    return (low < value or (text[0] == "[" and low == value)) and (value < high or (text[-1] == "]" and value == high))


def all_options(schema: type) -> list[Option]:
    return list(options_of(schema))
