"""The options of a schema as a flat table: the one source of checks, `--help` and reference page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING

from gp.config.fitting import describe, fit, nearest
from gp.config.option import RULE, Rule, rule_of

Where = Callable[[str], str]  # a dotted key -> what names its source in front of a message, e.g. "command line: "


@dataclass(frozen=True)
class Option:
    """One option of a schema.

    Args:
        key: dotted, e.g. `optim.lr`.
        hint: its type.
        default: `MISSING` if it must be given.
        rule: what it means and takes.
    """

    key: str
    hint: Any
    default: Any
    rule: Rule

    @property
    def takes(self) -> str:
        """The values that it takes, in words."""
        return describe(self.hint, self.rule)


def sections_of(schema: type) -> dict[str, type]:
    """Name -> dataclass of the sections of a schema; "" is the schema itself, first."""
    inner: dict[str, Any] = {
        name: hint for name, hint in get_type_hints(schema).items() if dataclasses.is_dataclass(hint)
    }
    return {"": schema, **inner}


def options_of(schema: type) -> Iterator[Option]:
    """Yields the options of a schema, section by section."""
    for section, part in sections_of(schema).items():
        hints = get_type_hints(part)
        for one in dataclasses.fields(part):
            if RULE in one.metadata:
                default = one.default_factory() if one.default is NO_DEFAULT else one.default
                yield Option(f"{section}.{one.name}" if section else one.name, hints[one.name], default, rule_of(one))


def defaults_of(schema: type) -> dict[str, Any]:
    """Nested default values; those that must be given are `MISSING`."""
    values: dict[str, Any] = {name: {} for name in sections_of(schema) if name}
    for one in options_of(schema):
        section, _, name = one.key.rpartition(".")
        (values[section] if section else values)[name] = one.default
    return values


def refuse_unknown(schema: type, given: dict[str, Any], where: str) -> None:
    """ValueError for the first key that the schema does not have, with the nearest one that it has.

    Args:
        schema: a dataclass of options.
        given: nested values.
        where: they come from, for the message.
    """
    keys = _keys(schema)
    for section in sections_of(schema):
        if not isinstance(values := given.get(section, {}) if section else given, dict):
            raise ValueError(f"{where}: {section} must be a section with keys of its own, got {values!r:.200}")
        for name in values:
            key = f"{section}.{name}" if section else str(name)
            if key not in keys:
                siblings = [k for k in keys if k.startswith(f"{section}." if section else "")]
                raise ValueError(f"{where}: unknown key {key!r}; the nearest known one is {nearest(key, siblings)!r}")


def build(schema: type, values: dict[str, Any], where: Where) -> Any:
    """Nested plain values of all options -> the dataclass, every value held to its type and rule.

    Raises:
        ValueError: names source and key, what was expected and what came.
    """
    if missing := sorted(one.key for one in options_of(schema) if _value(values, one.key) == MISSING):
        raise ValueError(f"{where('')}no value for {', '.join(missing)}")
    made: dict[str, dict[str, Any]] = {section: {} for section in sections_of(schema)}
    for one in options_of(schema):
        section, _, name = one.key.rpartition(".")
        made[section][name] = fit(_value(values, one.key), one.hint, one.rule, f"{where(one.key)}{one.key}")
    parts = {name: part(**made[name]) for name, part in sections_of(schema).items() if name}
    return schema(**made[""], **parts)


def _keys(schema: type) -> list[str]:
    return [*filter(None, sections_of(schema)), *(one.key for one in options_of(schema))]


def _value(values: dict[str, Any], key: str) -> Any:
    section, _, name = key.rpartition(".")
    return (values[section] if section else values)[name]
