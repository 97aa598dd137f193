"""An option of a schema as data: default, one-line description, and which values it takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

RULE = "rule"  # key of a field's metadata
FINITE = "(-inf, inf)"


@dataclass(frozen=True)
class Interval:
    """Range of a number, written as in mathematics: `[0, 1)`, `[1, inf)`, `(0, inf)`."""

    text: str

    def __contains__(self, value: float) -> bool:
        low, high = self._ends()
        above = value >= low if self.text[0] == "[" else value > low
        below = value <= high if self.text[-1] == "]" else value < high
        return above and below  # never with NaN

    def __str__(self) -> str:
        """The range in words; empty where any finite number will do."""
        low, high = self._ends()
        if low == high:
            return f"exactly {low:g}"
        if high == math.inf:
            return "" if low == -math.inf else f"{low:g} or more" if self.text[0] == "[" else f"more than {low:g}"
        return f"in {self.text}"

    def _ends(self) -> tuple[float, float]:
        low, high = self.text[1:-1].split(",")
        return float(low), float(high)


@dataclass(frozen=True)
class Rule:
    """Meaning and allowed values of an option.

    Args:
        help: one line.
        within: range of the number, or of each number in a list or mapping.
        choices: the values, or those of each entry; empty: any.
        length: range of the number of entries of lists and mappings.
        distinct: no entry of a list comes twice.
    """

    help: str
    within: Interval = Interval(FINITE)
    choices: tuple[str, ...] = ()
    length: Interval = Interval("[0, inf)")
    distinct: bool = False


def option(
    default: Any,
    help: str,
    *,
    within: str = FINITE,
    choices: Sequence[str] = (),
    length: str = "[0, inf)",
    distinct: bool = False,
) -> Any:
    """A dataclass field with its `Rule`. Numbers must be finite and text not empty, whatever the rule."""
    metadata = {RULE: Rule(help, Interval(within), tuple(choices), Interval(length), distinct)}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def rule_of(one: dataclasses.Field) -> Rule:
    """The rule of a field that `option` made."""
    return one.metadata[RULE]
