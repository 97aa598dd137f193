"""The HTTP side of the front: pictures are exchanged on the way in, everything else is passed on, both ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gp.front.looking import Looker
from gp.front.options import FrontConfig
from gp.front.rewriting import as_looker_sees, put_look, take_pictures
from gp.serve.app import GONE, check_key, not_here, refusal
from gp.serve.body import ClientDisconnect, read_body
from gp.serve.refusing import Refused, bad
from gp.serve.request import read_json

CONNECT_S = 10
OWN = "zoom"  # key of a request that the server behind does not see
PASSED_BACK = ("content-type", "retry-after", "x-request-id")


class Front:
    """Passes requests on to another server.

    Args:
        config: options of the front.
        looker: the model that looks.
        client: that reaches the other server.
    """

    def __init__(self, config: FrontConfig, looker: Looker, client: httpx2.AsyncClient) -> None:
        self.config, self.looker, self.client = config, looker, client
        self.key, self.upstream_key, self.looking = config.key, config.upstream_key, 0

    def routes(self) -> list[Route]:
        return [
            Route("/v1/chat/completions", self.complete, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/health", self.health),
        ]

    async def complete(self, request: Request) -> Response:
        """A chat completion: pictures become thumbnails and crops, and the other server answers."""
        try:
            check_key(request, self.key)
            body = await read_body(request, self.config.limits.body_mib, self.config.limits.read_s)
            return await self._pass(request, "POST", "/chat/completions", await self._rewrite(body))
        except Refused as why:
            return refusal(why)
        except ClientDisconnect:
            return Response(status_code=GONE)

    async def models(self, request: Request) -> Response:
        """The other server's models."""
        try:
            check_key(request, self.key)
            return await self._pass(request, "GET", "/models", None)
        except Refused as why:
            return refusal(why)

    async def health(self, request: Request) -> Response:
        """200: the front runs; it says nothing about the server behind it."""
        return JSONResponse({"status": "ok"})

    async def _rewrite(self, body: bytes) -> bytes:
        if self.looking >= self.config.limits.waiting:
            raise Refused(429, f"{self.looking} requests wait already: try again later", code="too_many_requests")
        self.looking += 1
        try:
            return await asyncio.to_thread(rewrite, body, self.config, self.looker)
        finally:
            self.looking -= 1

    async def _pass(self, request: Request, method: str, path: str, body: bytes | None) -> Response:
        """What the other server answers, piece by piece, with its status."""
        headers = {"content-type": "application/json"}
        key = f"Bearer {self.upstream_key}" if self.upstream_key else request.headers.get("authorization")
        if key:
            headers["authorization"] = key
        address = self.config.upstream.rstrip("/") + path
        asking = self.client.build_request(method, address, content=body, headers=headers)
        try:
            answer = await self.client.send(asking, stream=True)
        except httpx2.HTTPError as error:
            what = f"the server behind, {self.config.upstream}, does not answer: {type(error).__name__}"
            raise Refused(502, what, code="upstream") from error
        back = {name: answer.headers[name] for name in PASSED_BACK if name in answer.headers}
        return StreamingResponse(pieces(answer), answer.status_code, back)


async def pieces(answer: httpx2.Response) -> AsyncIterator[bytes]:
    """The bytes of an answer as they come; closing it tells the other server that nobody waits any more."""
    try:
        async for piece in answer.aiter_bytes():
            yield piece
    finally:
        await answer.aclose()


def rewrite(body: bytes, config: FrontConfig, looker: Looker) -> bytes:
    """The request that the other server gets; one without pictures as it came.

    Raises:
        Refused: no JSON object, a picture that cannot be read, or an option of zoom that there is not.
    """
    given = read_json(body)
    settings: Any = given.pop(OWN, None) or {}
    if not isinstance(settings, dict):
        raise bad(OWN, "expected an object")
    pictures = take_pictures(given.get("messages"), config)
    if pictures:
        try:
            look = looker.look(as_looker_sees(given["messages"], pictures), pictures, settings)
        except (ValueError, TypeError) as error:
            raise bad(OWN, str(error)) from error
        given["messages"] = put_look(given["messages"], look)
    return json.dumps(given).encode()


def make_app(
    config: FrontConfig, looker: Looker, on_ready: Callable[[], None] = lambda: None, **client: Any
) -> Starlette:
    """The application; `client` has arguments of the HTTP client that reaches the other server."""
    timeout = httpx2.Timeout(config.limits.time_s, connect=CONNECT_S)
    reaching = httpx2.AsyncClient(timeout=timeout, limits=httpx2.Limits(max_connections=None), **client)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with reaching:
            on_ready()
            yield

    front = Front(config, looker, reaching)
    return Starlette(routes=front.routes(), lifespan=lifespan, exception_handlers={HTTPException: not_here})
