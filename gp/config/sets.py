"""What a set of a bench says of itself: `eval.sets.SPLIT`, and what the whole evaluation says where it does not."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from gp.config.fitting import fit, nearest
from gp.config.option import Interval, Rule
from gp.config.schema import FROM_1, SCORERS, EvalConfig

RULES = {
    "suffix": Rule("text behind each question; it is not part of the question in results"),
    "scores": Rule("the first one is the set's score", choices=SCORERS, length=Interval(FROM_1), distinct=True),
    "max_new_tokens": Rule("longest answer", within=Interval(FROM_1)),
    "categories": Rule("accuracy is shown for each; a question's is what its source_id begins with", distinct=True),
}


@dataclass(frozen=True)
class SetOptions:
    """How the questions of one split are asked and scored.

    Args:
        suffix: behind each question, as it is; "": nothing.
        scores: names of scorers; the first one is the set's score.
        max_new_tokens: of an answer.
        categories: into which results are broken down; a question is of the one that its `source_id` begins with.
    """

    suffix: str
    scores: list[str]
    max_new_tokens: int
    categories: list[str]


def set_options(evaluation: EvalConfig, split: str) -> SetOptions:
    """The options of a split: its own, else those of the section `eval`."""
    general = {"suffix": "", "scores": evaluation.scores, "max_new_tokens": evaluation.max_new_tokens, "categories": []}
    return SetOptions(**{**general, **evaluation.sets.get(split, {})})


def check_sets(evaluation: EvalConfig) -> None:
    """Checks `eval.sets` and gives every value its type.

    Raises:
        ValueError: an unknown key, or a value that the key does not take; names the key.
    """
    known = [field.name for field in fields(SetOptions)]
    hints = get_type_hints(SetOptions)
    for split, given in evaluation.sets.items():
        for name, value in given.items():
            key = f"eval.sets.{split}.{name}"
            if name not in known:
                raise ValueError(f"unknown key {key!r}; the nearest known one is {nearest(name, known)!r}")
            given[name] = _text(value, key) if name == "suffix" else fit(value, hints[name], RULES[name], key)


def _text(value: Any, key: str) -> str:
    """A suffix may be empty, which no other text of a config may."""
    if not isinstance(value, str):
        raise ValueError(f"{key} must be text, got {value!r:.200}")
    return value
