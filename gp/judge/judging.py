"""Many answers judged at the same time, each question asked once, replies kept as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gp.config.judge import JudgeConfig
from gp.judge.endpoint import Endpoint
from gp.judge.errors import NoAnswer
from gp.judge.protocols import PROTOCOLS, Case
from gp.judge.replies import Replies, key_of_request

UNREAD_TRIES = 2  # servers with batches do not always say the same at temperature 0
NOT_ASKED = "not asked"  # how such a problem begins
OUT_AFTER = 8  # cases in a row, or as many as are asked at a time, that got no answer: the endpoint is out


@dataclass(frozen=True)
class Verdict:
    """What came of one case.

    Args:
        score: in 0..1; None: missing, which is no score of 0.
        reply: of the judge, if there was one.
        problem: why the score is missing; None: it is not.
        is_outage: the endpoint did not serve; asked again later, this case may get a score.
    """

    score: float | None = None
    reply: str | None = None
    problem: str | None = None
    is_outage: bool = False


class Judge:
    """Scores answers; use it in `async with`, several `judge_all` of it may run at a time.

    Replies that have a score are kept, others are asked for again by the next `judge_all`.

    Args:
        config: endpoint, model and protocol.
        replies: those on disk; None: nothing is kept.

    Raises:
        ValueError: `judge.key_env` names a variable that is not set.
    """

    def __init__(self, config: JudgeConfig, replies: Replies | None = None) -> None:
        self.config, self.replies = config, replies
        self.protocol = PROTOCOLS[config.protocol]
        self._endpoint = Endpoint(config)
        self._turn = asyncio.Semaphore(config.concurrency)

    async def __aenter__(self) -> Judge:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._endpoint.close()

    async def judge_all(
        self, cases: Iterable[Case], advance: Callable[[int, Verdict], None] = lambda count, verdict: None
    ) -> list[Verdict]:
        """Judges answers; equal cases are asked once.

        If the endpoint stays out, the cases that are left are missing, too, and nothing more is asked.

        Args:
            cases: in any order.
            advance: called with a number of cases that have just got the same verdict, and with it.

        Returns:
            A verdict per case, in order.

        Raises:
            ValueError: the endpoint refuses the key or does not know the model.
            OSError: a reply cannot be kept.
        """
        cases = list(cases)
        counts: dict[Case, int] = {}
        for case in cases:
            counts[case] = counts.get(case, 0) + 1
        verdicts: dict[Case, Verdict] = {}
        outage = _Outage(max(OUT_AFTER, self.config.concurrency))

        async def work(todo: Iterator[Case]) -> None:
            for case in todo:
                verdicts[case] = await self._judge(case, outage)
                advance(counts[case], verdicts[case])

        todo = iter(counts)
        workers = [asyncio.create_task(work(todo)) for _ in range(min(self.config.concurrency, len(counts)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [verdicts[case] for case in cases]

    def request(self, case: Case) -> dict[str, Any]:
        """The fields of the request for a case, all that the reply depends on."""
        return {"model": self.config.model, "messages": self.protocol.ask(case), **sampling_of(self.config)}

    async def _judge(self, case: Case, outage: _Outage) -> Verdict:
        request = self.request(case)
        key = key_of_request(request, self.config.protocol, self.protocol.version)
        if self.replies is not None and (reply := self.replies.get(key)) is not None:
            return self._read(reply)
        try:
            async with self._turn:
                verdict = await self._ask(request, outage)
        except NoAnswer as error:
            outage.note(error.is_outage)
            return Verdict(problem=error.reason, is_outage=error.is_outage)
        if self.replies is not None and verdict.score is not None:
            self.replies.keep(key, verdict.reply or "")
        return verdict

    async def _ask(self, request: dict[str, Any], outage: _Outage) -> Verdict:
        for _ in range(UNREAD_TRIES):
            outage.check()
            verdict = self._read(await self._endpoint.ask(request))
            outage.note(False)
            if verdict.score is not None:
                break
        return verdict

    def _read(self, reply: str) -> Verdict:
        score = self.protocol.read(reply)
        problem = None if score is not None else "the reply does not give exactly one score"
        return Verdict(score, reply, problem)


class _Outage:
    """Notices that nothing gets through any more: hours of repeats for every case would end no better."""

    def __init__(self, limit: int) -> None:
        self._limit, self._in_a_row = limit, 0

    def note(self, is_outage: bool) -> None:
        """Counts a case that got nothing; any other one shows that the endpoint is there."""
        self._in_a_row = self._in_a_row + 1 if is_outage else 0

    def check(self) -> None:
        """Raises NoAnswer if it lasts."""
        if self._in_a_row >= self._limit:
            raise NoAnswer(f"{NOT_ASKED}: {self._limit} answers before got no reply", is_outage=True)


def sampling_of(config: JudgeConfig) -> dict[str, Any]:
    """The fields of every request but model and messages."""
    longest = {} if config.max_tokens is None else {"max_tokens": config.max_tokens}
    return {"temperature": 0, **longest, **config.extra}


def judge_cases(
    config: JudgeConfig,
    cases: Sequence[Case],
    replies: Replies | None = None,
    advance: Callable[[int, Verdict], None] = lambda count, verdict: None,
) -> list[Verdict]:
    """`Judge.judge_all` for code that is not asynchronous; arguments and errors as there."""

    async def work() -> list[Verdict]:
        async with Judge(config, replies) as judge:
            return await judge.judge_all(cases, advance)

    return asyncio.run(work())
