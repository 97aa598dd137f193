"""Reading what a client sends, up to a size and within a time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from gp.serve.refusing import Refused

MIB = 1 << 20
READ_ON = 8  # times the limit that is read, and thrown away, so that a client that is still writing hears the answer


async def read_body(request: Request, most_mib: float, within_s: float) -> bytes:
    """The body of a request.

    Raises:
        Refused: larger than allowed (413), or not there in time (408).
        ClientDisconnect: the client has gone away.
    """
    try:
        return await asyncio.wait_for(_read(request, int(most_mib * MIB)), within_s)
    except asyncio.TimeoutError:
        raise Refused(408, f"the request's body did not come within {within_s:g} s", code="timeout") from None


async def _read(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            parts.append(part)
        else:
            parts.clear()
            if size > READ_ON * most:
                break
    if size > most:
        raise Refused(413, f"the request's body has more than {most / MIB:g} MiB", code="request_too_large")
    return b"".join(parts)


async def until_gone(request: Request) -> None:
    """Returns when the client has gone away; only after the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


__all__ = ["ClientDisconnect", "read_body", "until_gone"]
