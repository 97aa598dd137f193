"""Choice letter: which of the options A, B, C, ... an answer names."""

from __future__ import annotations

import re

# the first form that is there decides; a bare letter inside a sentence is mostly an article
FORMS = (
    re.compile(r"\W*([A-Z])\W*", re.IGNORECASE),  # "B", "(b).": nothing else
    re.compile(r"\W*([A-Z])\s*[).:,].*", re.DOTALL),  # "B. red", "(B) red"
    re.compile(r".*?\b(?:answer|option|choice)\b(?:\s+is)?\s*:?\s*\(?([A-Z])\b(?!['\u2019]).*", re.DOTALL | re.I),
    re.compile(r".*?\(([A-Z])\).*", re.DOTALL),  # "it is (B)"
)


def choice_letter(text: str) -> str | None:
    """The option that an answer names, as a capital letter; None if it names none.

    >>> choice_letter("(b)"), choice_letter("B. red"), choice_letter("The answer is C."), choice_letter("A dog")
    ('B', 'B', 'C', None)
    """
    found = (form.fullmatch(text.strip()) for form in FORMS)
    return next((match[1].upper() for match in found if match), None)


def choice(prediction: str, answer: str) -> float:
    """1 if the prediction names the answer's option, else 0; an answer that names none must be met as a text."""
    right = choice_letter(answer)
    if right is None:
        return float(prediction.strip().lower() == answer.strip().lower())
    return float(choice_letter(prediction) == right)
