"""The reward `judge`: the LLM that scores evaluations, asked in a thread while the model works on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from gp.config.plus import PlusConfig
from gp.runs.folder import run_folder
from gp.training.grpo.rewards import Answered, Reward, Scores

if TYPE_CHECKING:
    from gp.judge import Case, Replies

CACHE = "judge-cache"  # in the run's folder
PAUSE_S = 2.0  # until a judge that is away is asked again, by a client that repeats `judge.max_retries` times

log = logging.getLogger(__name__)


class JudgeAway(TimeoutError):
    """The judge stayed away for longer than `judge.patience_s`."""


class JudgeReward(Reward):
    """Scores answers by `gp.judge`, with its cache: what was asked once, in this run or before, is not asked again.

    A judge that is away is waited for, up to `judge.patience_s`, and then the run ends: leaving answers out for as long
    would be a run that learns nothing. An answer that it refuses, or whose reply has no score, has no reward.

    Args:
        config: of the run.
    """

    takes_time = True

    def __init__(self, config: PlusConfig) -> None:
        self._judge = config.judge
        self._cache = Path(config.judge.cache or run_folder(config) / CACHE)
        self._replies: Replies | None = None  # read late: loading a model only to evaluate it needs none

    def start(self, answers: Sequence[Answered]) -> Callable[[], Scores]:
        """As of `Reward`; what is returned raises what `gp.judge` raises, and JudgeAway."""
        from gp.judge import Case, Replies  # here, because they need openai

        self._replies = Replies(self._cache) if self._replies is None else self._replies
        cases = [Case(one.question, one.right, one.said) for one in answers]
        return _in_thread(lambda: self._scores(cases))

    def _scores(self, cases: Sequence[Case]) -> Scores:
        from gp.judge import judge_cases

        start_s, was_away = time.monotonic(), False
        while True:
            verdicts = judge_cases(self._judge, cases, self._replies)
            if not (problems := [verdict.problem for verdict in verdicts if verdict.is_outage]):
                if was_away:
                    log.warning("judge: back after %.0f s", time.monotonic() - start_s)
                return [verdict.score for verdict in verdicts]
            left_s = self._judge.patience_s - (time.monotonic() - start_s)
            if left_s <= 0:
                raise JudgeAway(
                    f"judge: away for {self._judge.patience_s:g} s ({problems[0]}); "
                    "go on with ckpt=auto when it is back, or give judge.patience_s more"
                )
            if not was_away:
                log.warning("judge: away (%s); this step waits up to %.0f s more", problems[0], left_s)
            was_away = True
            time.sleep(min(PAUSE_S, left_s))


def _in_thread(work: Callable[[], Scores]) -> Callable[[], Scores]:
    """Begins work in a thread that ends with the process; what is returned waits for it, and raises its errors."""
    future: Future[Scores] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # for whoever waits
            future.set_exception(error)

    Thread(target=run, name="judge", daemon=True).start()
    return future.result
