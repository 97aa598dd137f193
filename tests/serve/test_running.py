"""A server that cannot start says why, whatever uvicorn does about it."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

pytest.importorskip("uvicorn")

from starlette.applications import Starlette

from gp.serve.running import bind, run_app


def test_what_the_start_raises_is_raised():
    @asynccontextmanager
    async def lifespan(app):
        raise ValueError("no such base")
        yield

    with bind("127.0.0.1", 0) as listening, pytest.raises(ValueError, match="no such base"):
        run_app(Starlette(lifespan=lifespan), listening, 1)


def test_a_taken_address_is_named():
    with bind("127.0.0.1", 0) as listening:
        listening.listen()
        port = listening.getsockname()[1]
        with pytest.raises(OSError, match=f"host=127.0.0.1 port={port}"):
            bind("127.0.0.1", port)
