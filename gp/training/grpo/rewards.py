"""What an answer is worth. A reward is a class here and an entry in `REWARDS`; runs take weighted sums of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gp.metrics.scorers import SCORERS

Scores = list[float | None]  # 0..1 each; None: could not be found out


@dataclass(frozen=True)
class Answered:
    """An answer that was drawn.

    Args:
        question: as it was asked.
        right: the right answer.
        said: the answer.
    """

    question: str
    right: str
    said: str


class Reward(ABC):
    """Scores answers, perhaps elsewhere and later."""

    @abstractmethod
    def start(self, answers: Sequence[Answered]) -> Callable[[], Scores]:
        """Begins to score; what is returned waits for the scores. The model works on in between.

        None is the score of an answer that could not be scored, such as by a judge that is away: its question is left
        out of the step. 0 would teach that the answer was wrong.
        """


class Scorer(Reward):
    """A scorer of evaluation, at once.

    Args:
        name: in `gp.metrics.scorers.SCORERS`.
    """

    def __init__(self, name: str) -> None:
        self._score = SCORERS[name]

    def start(self, answers: Sequence[Answered]) -> Callable[[], Scores]:
        scores: Scores = [self._score(one.said, one.right) for one in answers]
        return lambda: scores


REWARDS: dict[str, Callable[[], Reward]] = {
    "exact": lambda: Scorer("exact_match"),
    "anls": lambda: Scorer("anls"),
}


class WeightedRewards:
    """A weighted sum of rewards.

    Args:
        weights: reward -> its weight; one of weight 0 is not asked.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._parts = [(REWARDS[name](), weight) for name, weight in weights.items() if weight]

    def start(self, answers: Sequence[Answered]) -> Callable[[], Tensor]:
        """Begins to score; what is returned waits, and gives float32 [answers], NaN for what has no reward."""
        waiting = [(reward.start(answers), weight) for reward, weight in self._parts]

        def wait() -> Tensor:
            total = torch.zeros(len(answers))
            for scores, weight in waiting:
                total += weight * torch.tensor([float("nan") if one is None else one for one in scores()])
            return total

        return wait
