"""Runs an application under uvicorn: a socket that is bound before anything slow, and an end that leaves nothing."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import uvicorn
from starlette.types import ASGIApp

from gp.serve.app import make_app
from gp.serve.options import ServeConfig
from gp.serve.pool import Pool


def run(config: ServeConfig, devices: Sequence[str]) -> None:
    """Serves until a signal comes.

    Raises:
        OSError: the address is taken.
        ValueError: a worker cannot load its model.
    """
    with bind(config.host, config.port) as listening:
        port = listening.getsockname()[1]

        def say() -> None:
            print(f"serving {config.model_name} on http://{config.host}:{port}/v1 ({', '.join(devices)})", flush=True)

        pool = Pool(config, devices)
        run_app(make_app(config, pool, say), listening, config.limits.shutdown_s)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; OSError names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(f"host={host} port={port}: {error.strerror}") from error
    return listening


def run_app(app: ASGIApp, listening: socket.socket, shutdown_s: float) -> None:
    """Serves an application on a socket until SIGINT or SIGTERM; raises what its start raises."""
    problem: list[BaseException] = []

    async def watched(scope, receive, send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            if scope["type"] == "lifespan":
                problem.append(error)
            raise

    settings = uvicorn.Config(
        watched,
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=max(1, round(shutdown_s)),
        lifespan="on",
    )
    try:
        uvicorn.Server(settings).run(sockets=[listening])
    except SystemExit:  # newer ones end the process, without a word, if the start failed
        if not problem:
            raise
    if problem:
        raise problem[0]
