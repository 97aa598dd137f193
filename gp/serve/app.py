"""The HTTP side: routes, key, and how a request becomes an answer, a stream or an error."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gp.serve.body import ClientDisconnect, read_body, until_gone
from gp.serve.events import Begun, Ended, Text
from gp.serve.fetching import fetch
from gp.serve.metrics import CONTENT_TYPE, Metrics
from gp.serve.options import ServeConfig
from gp.serve.pool import Pool
from gp.serve.refusing import Refused
from gp.serve.replies import DONE, Reply, model_list, sse
from gp.serve.request import ChatRequest, parse

GONE = 499  # counted, never sent
RETRY_S = "1"


class Server:
    """Answers chat completions with the workers of a pool.

    Args:
        config: options of the server.
        pool: of its workers, started.
    """

    def __init__(self, config: ServeConfig, pool: Pool) -> None:
        self.config, self.pool, self.key = config, pool, config.key
        self.metrics = Metrics(lambda: pool.num_open, lambda: pool.restarts)

    def routes(self) -> list[Route]:
        return [
            Route("/v1/chat/completions", self.complete, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/health", self.health),
            Route("/metrics", self.page),
        ]

    async def complete(self, request: Request) -> Response:
        """A chat completion, whole or as a stream."""
        arrived = time.monotonic()
        try:
            check_key(request, self.key)
            limits = self.config.limits
            body = await read_body(request, limits.body_mib, limits.read_s)
            asked = await asyncio.to_thread(parse, body, self.config)
            asked = await unless_gone(request, fetch(asked, self.config))
            response = await self._respond(request, asked, arrived)
        except Refused as why:
            response = refusal(why)
        except ClientDisconnect:
            response = Response(status_code=GONE)
        if not isinstance(response, StreamingResponse):
            self.metrics.status(response.status_code)
        return response

    async def _respond(self, request: Request, asked: ChatRequest, arrived: float) -> Response:
        """Waits for the first word of the worker, so that an error still has a status of its own."""
        events = self._events(asked, arrived)
        begun = await unless_gone(request, anext(events))
        assert isinstance(begun, Begun)
        reply = Reply(self.config.model_name)
        if asked.stream:
            return StreamingResponse(self._stream(reply, asked, begun, events), media_type="text/event-stream")
        ended = await unless_gone(request, last_of(events))
        return JSONResponse(reply.whole(begun, ended))

    async def _stream(
        self, reply: Reply, asked: ChatRequest, begun: Begun, events: AsyncGenerator[Begun | Text | Ended, None]
    ) -> AsyncIterator[bytes]:
        status = GONE
        try:
            async with aclosing(events):
                yield reply.chunk({"role": "assistant", "content": ""})
                async for event in events:
                    if isinstance(event, Text):
                        yield reply.chunk({"content": event.text})
                    elif isinstance(event, Ended):
                        if event.rest:
                            yield reply.chunk({"content": event.rest})
                        yield reply.chunk({}, event.reason)
                        if asked.usage_at_end:
                            yield reply.last(begun, event)
            yield DONE
            status = 200
        except Refused as why:  # the status has been sent: all that can follow is an event with the error
            status = why.status
            yield sse(why.body)
        finally:
            self.metrics.status(status)

    async def _events(self, asked: ChatRequest, arrived: float) -> AsyncGenerator[Begun | Text | Ended, None]:
        """What the pool says, counted."""
        async with aclosing(self.pool.ask(asked)) as events:
            async for event in events:
                if isinstance(event, Begun):
                    self.metrics.begun(event, time.monotonic() - arrived)
                elif isinstance(event, Ended):
                    self.metrics.ended(event, time.monotonic() - arrived)
                yield event

    async def models(self, request: Request) -> Response:
        """The one model."""
        try:
            check_key(request, self.key)
        except Refused as why:
            return refusal(why)
        return JSONResponse(model_list(self.config.model_name))

    async def health(self, request: Request) -> Response:
        """200 while some worker can answer, else 503; needs no key."""
        healthy = self.pool.is_healthy
        return JSONResponse({"status": "ok" if healthy else "no worker"}, 200 if healthy else 503)

    async def page(self, request: Request) -> Response:
        """The counters; with a key if there is one, because they tell how much is asked."""
        try:
            check_key(request, self.key)
        except Refused as why:
            return refusal(why)
        return Response(self.metrics.page(), media_type=CONTENT_TYPE)


def make_app(config: ServeConfig, pool: Pool, on_ready: Callable[[], None] = lambda: None) -> Starlette:
    """The application; its workers start and end with it."""
    server = Server(config, pool)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await pool.start()
        on_ready()
        try:
            yield
        finally:
            await pool.close()

    return Starlette(routes=server.routes(), lifespan=lifespan, exception_handlers={HTTPException: not_here})


async def not_here(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, in the form of all errors."""
    assert isinstance(error, HTTPException)
    return refusal(Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))


def check_key(request: Request, key: str | None) -> None:
    """Refused unless the request carries the key; comparing takes the same time for any wrong one."""
    given = request.headers.get("authorization", "").encode()
    if key is not None and not hmac.compare_digest(given, f"Bearer {key}".encode()):
        raise Refused(401, "expected the server's key, as Authorization: Bearer ...", code="invalid_api_key")


def refusal(why: Refused) -> JSONResponse:
    """An error as a response."""
    return JSONResponse(why.body, why.status, {"retry-after": RETRY_S} if why.status in (429, 503) else None)


async def last_of(events: AsyncIterator[Any]) -> Ended:
    """The event with the whole answer."""
    async for event in events:
        if isinstance(event, Ended):
            return event
    raise RuntimeError("a worker's answer has no end")


async def unless_gone(request: Request, work: Any) -> Any:
    """What `work` returns; ClientDisconnect, and `work` is cancelled, if the client goes away before."""
    doing, gone = asyncio.ensure_future(work), asyncio.ensure_future(until_gone(request))
    try:
        await asyncio.wait((doing, gone), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientDisconnect
        return doing.result()
    finally:
        for one in (doing, gone):
            one.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)
