"""VQA accuracy: an answer against those of several people, in the normal form of the VQA challenge."""

from __future__ import annotations

import re
from collections.abc import Sequence

ENOUGH = 3  # people who say the same
ARTICLES = ("a", "an", "the")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {**{word: str(value) for value, word in enumerate(WORDS)}, "none": "0"}
MARKS = r"""[;/\[\]"{}()=+\\_\->\<@`,?!]"""


def normalize_vqa(text: str) -> str:
    """The form in which VQA answers are compared: no case, articles and punctuation, number words as digits.

    A point stays between digits, commas inside numbers go. Apostrophes are dropped on both sides, where the published
    code puts missing ones back from a list of contractions: "dont" equals "don't" in both.

    Source: evaluation of the VQA challenge, https://visualqa.org/evaluation.html.

    >>> normalize_vqa("The two, red-brick houses."), normalize_vqa("1,000"), normalize_vqa("3.5")
    ('2 red brick houses', '1000', '3.5')
    """
    text = re.sub(r"(?<=\d),(?=\d)", "", text.lower())
    text = re.sub(MARKS, " ", text).replace("'", "").replace("\u2019", "")
    text = re.sub(r"\.(?!\d)", "", text)
    words = (NUMBERS.get(word, word) for word in text.split())
    return " ".join(word for word in words if word not in ARTICLES)


def vqa_accuracy(prediction: str, answers: str | Sequence[str]) -> float:
    """Agreement with people, in 0..1: min(1, others who say the same / 3), mean over leaving out each person in turn.

    With a single answer there are no others: 1 if it is the same, else 0.

    Args:
        prediction: of the model.
        answers: of people, usually ten; or one text.

    Raises:
        ValueError: no answers.

    Source: Antol et al., "VQA: Visual Question Answering", 2015; leaving out as in the challenge's evaluation code.

    >>> vqa_accuracy("two", ["2"] * 3 + ["3"] * 7)
    0.9
    """
    if isinstance(answers, str):
        answers = [answers]
    if not answers:
        raise ValueError("VQA accuracy: expected at least one answer, got none")
    said = normalize_vqa(prediction)
    same = [said == normalize_vqa(answer) for answer in answers]
    if len(same) == 1:
        return float(same[0])
    agreed = sum(same)
    return sum(min(ENOUGH, agreed - one) for one in same) / (ENOUGH * len(same))
