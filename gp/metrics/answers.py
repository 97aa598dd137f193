"""Accuracy of answers, with pruning and without, and how often the two are the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

ARTICLES = ("a", "an", "the")
OPENING = "\"'`([{\u201c\u2018"
CLOSING = ".,!?;:\"'`)]}\u201d\u2019"


def normalize_answer(text: str) -> str:
    """The form in which two answers are compared.

    Unicode NFKC, no case, one space between words, no quotes, brackets and punctuation around words, no leading
    article unless it is all there is. Signs and points inside or before numbers stay: "-3", "$5", "3.5", ".5".

    Source: the answer normalisation of SQuAD, gentler, because answers here are also numbers and option letters.

    >>> normalize_answer("  The Red  Bus. ")
    'red bus'
    >>> normalize_answer("(A)"), normalize_answer("3.5"), normalize_answer("35")
    ('a', '3.5', '35')
    """
    words = unicodedata.normalize("NFKC", text).casefold().split()
    words = [stripped for word in words if (stripped := word.lstrip(OPENING).rstrip(CLOSING))]
    if len(words) > 1 and words[0] in ARTICLES:
        words = words[1:]
    return " ".join(words)


def exact_match(prediction: str, answer: str) -> bool:
    """True if the two are the same once normalised; see `normalize_answer`."""
    return normalize_answer(prediction) == normalize_answer(answer)


class AnswerScores(Metric):
    """Accuracy by exact match with pruning and without, and agreement of the two. Only counts are kept and synced."""

    full_state_update = False
    num_right: Tensor
    num_right_unpruned: Tensor
    num_agreed: Tensor
    num_samples: Tensor
    num_compared: Tensor

    def __init__(self, **options):
        super().__init__(**options)
        for name in ("num_right", "num_right_unpruned", "num_agreed", "num_samples", "num_compared"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], answers: Sequence[str], unpruned: Sequence[str] | None = None) -> None:
        """Texts of n samples.

        Args:
            predictions: answers of the pruned model.
            answers: the right ones.
            unpruned: answers of the model without pruning, if they were made.

        Raises:
            ValueError: lists of different lengths.
        """
        lengths = {len(texts) for texts in (predictions, answers, unpruned) if texts is not None}
        if len(lengths) > 1 or isinstance(predictions, str):
            raise ValueError(f"expected as many predictions as answers, got lists of {sorted(lengths)}")
        self.num_right += sum(map(exact_match, predictions, answers))
        self.num_samples += len(predictions)
        if unpruned is not None:
            self.num_right_unpruned += sum(map(exact_match, unpruned, answers))
            self.num_agreed += sum(map(exact_match, predictions, unpruned))
            self.num_compared += len(predictions)

    def compute(self) -> dict[str, Tensor]:
        """`answer_accuracy` (float64 scalar in 0..1), `num_samples` (int64 scalar), and if any sample was compared
        `answer_accuracy_unpruned`, `agreement` (of these samples) and `num_compared`.
        """
        scores = {"answer_accuracy": self.num_right.double() / self.num_samples.clamp(min=1)}
        scores["num_samples"] = self.num_samples.clone()
        if self.num_compared > 0:
            scores["answer_accuracy_unpruned"] = self.num_right_unpruned.double() / self.num_compared
            scores["agreement"] = self.num_agreed.double() / self.num_compared
            scores["num_compared"] = self.num_compared.clone()
        return scores
