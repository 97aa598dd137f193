"""Several runs from one command line: `seed=0,1,2` is three, `optim.lr=1e-4,5e-4 seed=0,1` four."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, get_origin

from gp.config import TrainConfig
from gp.config.table import options_of

QUOTES = ("[", "{", "'", '"')
# values of these may hold commas themselves, or name what a run may not share with another
NOT_SWEPT = ("ckpt", "name", "runs_dir", "trainer.devices", "eval.out", "task")


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Args:
        label: what tells it from the others, e.g. "seed=0" or "optim.lr=1e-4+seed=0".
        overrides: its command line's.
    """

    label: str
    overrides: list[str]

    def name(self, sweep: str) -> str:
        """Name of its run, in a sweep of that name; commas would part a list of checkpoints."""
        return f"{sweep}-{self.label}".replace("/", "_").replace(",", "_")


def members_of(overrides: Sequence[str]) -> list[Member]:
    """Takes a command line apart: an option of one value that is given several, with commas, is swept.

    Lists in brackets stay what they are, and so does a text in quotes.

    Args:
        overrides: `key=value` each; of one key, the last counts.

    Returns:
        Every combination, the first key varying slowest; one member without a label if nothing is swept.

    Raises:
        ValueError: an empty value among several, or one that is there twice.
    """
    scalar = {one.key for one in options_of(TrainConfig) if not _is_many(one.hint)} - {*NOT_SWEPT}
    given = dict(text.partition("=")[::2] for text in overrides if "=" in text)
    swept = {key: _values(key, value) for key, value in given.items() if key in scalar and _has_several(value)}
    rest = [text for text in overrides if text.partition("=")[0] not in swept]
    return [
        Member("+".join(parts := [f"{key}={value}" for key, value in zip(swept, values, strict=True)]), [*rest, *parts])
        for values in product(*swept.values())
    ]


def _has_several(value: str) -> bool:
    return "," in value and not value.lstrip().startswith(QUOTES)


def _values(key: str, value: str) -> list[str]:
    values = [part.strip() for part in value.split(",")]
    if not all(values):
        raise ValueError(f"command line: {key}={value}: an empty value among those to sweep over")
    if twice := [part for number, part in enumerate(values) if part in values[:number]]:
        raise ValueError(f"command line: {key}={value}: {twice[0]} is given twice")
    return values


def _is_many(hint: Any) -> bool:
    """Lists and mappings, also where null is allowed."""
    inner = getattr(hint, "__args__", ())
    return get_origin(hint) in (list, dict) or any(get_origin(part) in (list, dict) for part in inner)
