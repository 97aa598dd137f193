"""Clients of an OpenAI-compatible server: so many at a time, each streams its answer and notes when its pieces come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from gp.bench.serve_questions import Question

PATIENCE_S = 600.0


@dataclass(frozen=True)
class Way:
    """One way to be answered.

    Args:
        name: for people.
        address: of the server, up to and with /v1.
        model: its name there.
        more: further keys of each request.
    """

    name: str
    address: str
    model: str
    more: Mapping[str, Any]


@dataclass(frozen=True)
class Timed:
    """One answer.

    Args:
        text: all of it.
        first_s: from the request to the first text.
        last_s: from the request to the end.
        tokens: generated, as the server counts them.
    """

    text: str
    first_s: float
    last_s: float
    tokens: int

    @property
    def token_s(self) -> float | None:
        """Time for each token behind the first one; None if there is none."""
        return (self.last_s - self.first_s) / (self.tokens - 1) if self.tokens > 1 else None


def ask_all(way: Way, questions: Sequence[Question], concurrency: int, max_tokens: int) -> tuple[list[Timed], float]:
    """All questions, `concurrency` at a time; returns the answers in their order, and the seconds for all of them.

    Raises:
        ValueError: the server does not answer one of them, with what it said.
    """
    return asyncio.run(_ask_all(way, questions, concurrency, max_tokens))


async def _ask_all(
    way: Way, questions: Sequence[Question], concurrency: int, max_tokens: int
) -> tuple[list[Timed], float]:
    bodies = [as_body(way, one, max_tokens) for one in questions]  # written before the clock starts
    answers: dict[int, Timed] = {}
    left = iter(enumerate(bodies))
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(timeout=PATIENCE_S, limits=limits) as client:

        async def one_client() -> None:
            for number, body in left:
                answers[number] = await ask(client, way, body)

        start = time.perf_counter()
        await asyncio.gather(*(one_client() for _ in range(concurrency)))
        seconds = time.perf_counter() - start
    return [answers[number] for number in range(len(bodies))], seconds


def as_body(way: Way, question: Question, max_tokens: int) -> bytes:
    """The JSON of a greedy, streamed request."""
    fixed = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0, "max_tokens": max_tokens}
    return json.dumps({"model": way.model, "messages": question.messages, **fixed, **way.more}).encode()


async def ask(client: httpx2.AsyncClient, way: Way, body: bytes) -> Timed:
    """Sends one request and reads its stream."""
    start, first, text, tokens = time.perf_counter(), None, "", 0
    headers = {"content-type": "application/json", "authorization": "Bearer none"}
    address = f"{way.address}/chat/completions"
    try:
        async with client.stream("POST", address, content=body, headers=headers) as answer:
            if answer.status_code != 200:
                said = (await answer.aread()).decode(errors="replace")
                raise ValueError(f"{way.name}: status {answer.status_code}: {said[:300]}")
            async for line in answer.aiter_lines():
                if (piece := read_piece(line)) is None:
                    continue
                if "error" in piece:
                    raise ValueError(f"{way.name}: {piece['error']}")
                if new := "".join(choice["delta"].get("content") or "" for choice in piece["choices"]):
                    first = first or time.perf_counter()
                    text += new
                tokens = (piece.get("usage") or {}).get("completion_tokens", tokens)
    except httpx2.HTTPError as error:
        raise ValueError(f"{way.name}, {way.address}: {type(error).__name__} {error}") from error
    end = time.perf_counter()
    return Timed(text, (first or end) - start, end - start, tokens)


def read_piece(line: str) -> dict[str, Any] | None:
    """The JSON of a line of a stream of events; None for what is none, its end included."""
    data = line.removeprefix("data:").strip()
    return json.loads(data) if line.startswith("data:") and data != "[DONE]" else None
