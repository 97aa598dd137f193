"""Pictures whose addresses a request gives: downloaded before a worker sees them: a slow one delays nobody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx2

from gp.serve.body import MIB
from gp.serve.options import ServeConfig
from gp.serve.pictures import CODE, check_header
from gp.serve.refusing import bad
from gp.serve.request import ChatRequest


async def fetch(request: ChatRequest, config: ServeConfig) -> ChatRequest:
    """The request with files in the place of addresses, held to the limits of files that come in the request.

    Raises:
        Refused: an address that gives no picture, too large a one, or not all of them in time.
    """
    if not any(isinstance(one, str) for one in request.pictures):
        return request
    seconds = config.limits.read_s
    try:
        return await asyncio.wait_for(_with_files(request, config), seconds)
    except asyncio.TimeoutError as error:
        raise bad(None, f"the addresses of images did not give them within {seconds:g} s", CODE) from error


async def _with_files(request: ChatRequest, config: ServeConfig) -> ChatRequest:
    pictures = list(request.pictures)
    async with reaching() as client:
        for number, one in enumerate(pictures):
            if isinstance(one, str):
                at = f"image {number}, {one}"
                pictures[number] = content = await download(client, one, at, config.limits.body_mib)
                check_header(content, at, config.limits.image_megapixels)
    return replace(request, pictures=tuple(pictures))


def reaching() -> httpx2.AsyncClient:
    """The client that downloads; `fetch` has the clock."""
    return httpx2.AsyncClient(follow_redirects=True, timeout=None)


async def download(client: httpx2.AsyncClient, address: str, at: str, most_mib: float) -> bytes:
    """A file of at most so many MiB; Refused for a larger one, another status than 200, or no answer."""
    content = bytearray()
    try:
        async with client.stream("GET", address) as answer:
            if answer.status_code != 200:
                raise bad(at, f"status {answer.status_code}", CODE)
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > most_mib * MIB:
                    raise bad(at, f"more than {most_mib:g} MiB", CODE)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise bad(at, str(error) or type(error).__name__, CODE) from error
    return bytes(content)
