"""What an answer is worth. A reward is a class here and an entry in `REWARDS`; runs take weighted sums of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gp.config.plus import PlusConfig
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
    """Scores answers, perhaps elsewhere and later.

    Attributes:
        takes_time: worth drawing other answers meanwhile, for the memory of a second micro-batch at a step's end.
    """

    takes_time = False

    @abstractmethod
    def start(self, answers: Sequence[Answered]) -> Callable[[], Scores]:
        """Begins to score; what is returned waits for the scores. The model works on in between.

        None is the score of an answer that could not be scored, such as by a judge whose reply says nothing: it is left
        out, and the other answers to its question are compared with each other. 0 would teach that it was wrong.
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


def _judge(config: PlusConfig) -> Reward:
    from gp.training.grpo.judge_reward import JudgeReward  # here, because it is a `Reward`

    return JudgeReward(config)


REWARDS: dict[str, Callable[[PlusConfig], Reward]] = {
    "exact": lambda config: Scorer("exact_match"),
    "anls": lambda config: Scorer("anls"),
    "judge": _judge,
}


class WeightedRewards:
    """A weighted sum of rewards.

    Args:
        config: of the run; a reward of weight 0 is not asked.
    """

    def __init__(self, config: PlusConfig) -> None:
        self._parts = [(REWARDS[name](config), weight) for name, weight in config.reward.weights.items() if weight]

    @property
    def takes_time(self) -> bool:
        """Whether one of them does."""
        return any(reward.takes_time for reward, _ in self._parts)

    def start(self, answers: Sequence[Answered]) -> Callable[[], Tensor]:
        """Begins to score; what is returned waits, and gives float32 [answers], NaN for what has no reward."""
        waiting = [(reward.start(answers), weight) for reward, weight in self._parts]

        def wait() -> Tensor:
            total = torch.zeros(len(answers))
            for scores, weight in waiting:
                total += weight * torch.tensor([float("nan") if one is None else one for one in scores()])
            return total

        return wait
