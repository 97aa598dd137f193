"""A chat-completions server on this machine that misbehaves as it is told, and counts what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many", 500: "Broken"}


@dataclass
class Say:
    """What is sent back: a judge's reply (`text`), or a body as it is.

    Args:
        text: of the reply; the body is a chat completion with it.
        status, headers: of the response.
        body: in place of a chat completion.
        delay_s: before anything is sent.
        drop: close the connection: "before" the response or "within" its body.
    """

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    delay_s: float = 0.0
    drop: str = ""


@dataclass
class ChatServer:
    """The server as tests see it.

    Attributes:
        url: its base_url.
        requests: bodies of all chat completions it was asked for, in order.
        keys: values of the header Authorization, in order.
    """

    answer: Callable[[dict[str, Any], int], Say]
    models: tuple[str, ...] = ("judge-1",)
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)


@contextmanager
def chat_server(answer: Callable[[dict[str, Any], int], Say], **options: Any) -> Iterator[ChatServer]:
    """Serves in a thread of its own.

    Args:
        answer: body of a request, and how often the same messages were asked for before -> what is sent back.
        options: of `ChatServer`.
    """
    server = ChatServer(answer, **options)
    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(
        asyncio.start_server(lambda *streams: _connection(server, *streams), "127.0.0.1", 0, backlog=1024)
    )
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(_stop(listening), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def case_in(body: dict[str, Any]) -> dict[str, str]:
    """The fields of a request by the protocol `rubric`."""
    return json.loads(body["messages"][1]["content"])


async def _stop(listening: asyncio.Server) -> None:
    listening.close()
    connections = asyncio.all_tasks() - {asyncio.current_task()}
    for task in connections:
        task.cancel()
    await asyncio.gather(*connections, return_exceptions=True)


async def _connection(server: ChatServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        while await _request(server, reader, writer):
            pass
    writer.close()


async def _request(server: ChatServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answers one request; False: the connection ends."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    if head[0].startswith("GET"):
        say = Say(body=json.dumps({"object": "list", "data": [{"id": name} for name in server.models]}))
    else:
        say = _completion(server, json.loads(content), headers.get("authorization", ""))
    await asyncio.sleep(say.delay_s)
    if say.drop == "before":
        return False
    body = (_chat(say.text) if say.body is None else say.body).encode()
    lines = [f"HTTP/1.1 {say.status} {REASONS[say.status]}", f"Content-Length: {len(body)}"]
    given = {"Content-Type": "application/json", **say.headers}
    lines += [f"{name}: {value}" for name, value in given.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + (body[: len(body) // 2] if say.drop else body))
    await writer.drain()
    return not say.drop


def _completion(server: ChatServer, body: dict[str, Any], key: str) -> Say:
    server.requests.append(body)
    server.keys.append(key)
    if body["model"] not in server.models:
        return Say(status=404, body=json.dumps({"error": {"message": f"no model {body['model']}"}}))
    asked = json.dumps(body["messages"])
    before = server.asked.get(asked, 0)
    server.asked[asked] = before + 1
    return server.answer(body, before)


def _chat(text: str) -> str:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "judge-1", "choices": [choice]})
