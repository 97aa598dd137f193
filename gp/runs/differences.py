"""Differences between what was made earlier and what is wanted now, in the words of errors and notices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FINGERPRINT = "fingerprint"  # of a base: see `gp.backbones.fingerprint`
ADAPTER = "adapter"  # the same of the adapter on it; not there without one


@dataclass(frozen=True)
class Difference:
    """One value that differs; None stands for a missing one, too.

    Args:
        key: dotted name within nested mappings.
        there: the value of what was made earlier.
        here: the value wanted now.
    """

    key: str
    there: Any
    here: Any

    def __str__(self) -> str:
        return f"{self.key} {self.there} there, {self.here} here"


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[Difference]:
    """Lists all differences of nested mappings, keys of `here` first, in order; lists are values."""
    found: list[Difference] = []
    for name in [*here, *(name for name in there if name not in here)]:
        old, new, key = there.get(name), here.get(name), f"{prefix}{name}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{key}.")
        elif old != new:
            found.append(Difference(key, old, new))
    return found


def refuse_other_base(there: Mapping[str, Any] | None, here: Mapping[str, Any], where: str | Path) -> None:
    """Refuses trained parts of another base.

    Args:
        there: facts and name of the base that they were trained on (`gp.formats.glimpse_folder.base_facts`); None: the
            file does not say.
        here: facts of the base at hand; without a fingerprint on both sides, weights are not compared.
        where: file or option that the error names.

    Raises:
        ValueError: naming every difference.
    """
    if there is None:
        raise ValueError(f"{where}: does not say which base it was trained on: not trained parts of a glimpse")
    sizes = {key: value for key, value in here.items() if key not in (FINGERPRINT, ADAPTER)}
    if wrong := differences({key: there.get(key) for key in sizes}, sizes):
        raise ValueError(f"{where}: trained on another base, {there.get('name')}: {', '.join(map(str, wrong))}")
    if other := _other_digests(there.get(FINGERPRINT), here.get(FINGERPRINT)):
        raise ValueError(
            f"{where}: trained on another base of the same sizes, {there.get('name')}: expected weights with {other}"
        )
    if here.get(FINGERPRINT):  # else weights are not in memory, an adapter's neither
        _refuse_other_adapter(there.get(ADAPTER), here.get(ADAPTER), where)


def _refuse_other_adapter(there: Mapping[str, str] | None, here: Mapping[str, str] | None, where: str | Path) -> None:
    if there and not here:
        raise ValueError(
            f"{where}: trained on a base with an adapter, and this base has none: both belong together "
            "(gp.from_pretrained(base, glimpse=..., adapter=...), or model.adapter=... in a config)"
        )
    if here and not there:
        raise ValueError(f"{where}: trained on a base without an adapter, and this base has one")
    if wrong := _other_digests(there, here):
        raise ValueError(f"{where}: trained on a base with another adapter: expected one with {wrong}")


def _other_digests(there: Mapping[str, str] | None, here: Mapping[str, str] | None) -> str:
    """`bfloat16 fingerprint x, got y` for a dtype in which two sets of weights differ; empty if none is known to."""
    old, new = there or {}, here or {}
    wrong = [dtype for dtype in sorted(old.keys() & new.keys()) if old[dtype] != new[dtype]]
    return f"{wrong[0]} fingerprint {old[wrong[0]]}, got {new[wrong[0]]}" if wrong else ""
