"""Differences between what was made earlier and what is wanted now, in the words of errors and notices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FINGERPRINT = "fingerprint"  # of a base: see `gp.backbones.fingerprint`


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
    sizes = {key: value for key, value in here.items() if key != FINGERPRINT}
    if wrong := differences({key: there.get(key) for key in sizes}, sizes):
        raise ValueError(f"{where}: trained on another base, {there.get('name')}: {', '.join(map(str, wrong))}")
    for dtype in (digests := there.get(FINGERPRINT, {})).keys() & here.get(FINGERPRINT, {}).keys():
        if digests[dtype] != here[FINGERPRINT][dtype]:
            raise ValueError(
                f"{where}: trained on another base of the same sizes, {there.get('name')}: expected weights with "
                f"{dtype} fingerprint {digests[dtype]}, got {here[FINGERPRINT][dtype]}"
            )
