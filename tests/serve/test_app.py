"""Statuses, streams, key, limits and counters, with the stock client before a pool that says what it is told to."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("openai")
pytest.importorskip("starlette")

import httpx2
import openai

from gp.serve.app import make_app
from gp.serve.events import Begun, Ended, Text
from gp.serve.options import Limits, ServeConfig, ServedModel
from gp.serve.refusing import Refused

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "?"}]}
ANSWER = (Begun(0, 82, 64, 4, 2), Text(0, "0"), Text(0, " 4"), Ended(0, "0 4", "", "stop", 3))


class Told:
    """A pool that yields or raises what it was given, and notes who has left."""

    def __init__(self, *events):
        self.events, self.is_healthy, self.num_open, self.restarts, self.left = events, True, 0, 0, []

    async def start(self):
        pass

    async def close(self):
        pass

    async def ask(self, request):
        try:
            for event in self.events:
                if isinstance(event, Exception):
                    raise event
                if event == "wait":
                    await asyncio.sleep(60)
                else:
                    yield event
        except (GeneratorExit, asyncio.CancelledError):
            self.left.append(request)
            raise


def client_of(pool, **options):
    config = ServeConfig(ServedModel("tiny"), **options)
    transport = httpx2.ASGITransport(app=make_app(config, pool))
    return httpx2.AsyncClient(transport=transport, base_url="http://here")


def stock(pool, **options):
    return openai.AsyncOpenAI(
        base_url="http://here/v1", api_key="mine", http_client=client_of(pool, **options), max_retries=0
    )


def test_an_answer_and_a_stream_as_the_stock_client_reads_them():
    async def run():
        made = await stock(Told(*ANSWER)).chat.completions.create(**ASK)
        assert made.choices[0].message.content == "0 4" and made.choices[0].finish_reason == "stop"
        assert made.usage.to_dict() == {
            "prompt_tokens": 82,
            "completion_tokens": 3,
            "total_tokens": 85,
            "visual_tokens": 64,
            "visual_tokens_kept": 4,
        }
        how = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = [c async for c in await stock(Told(*ANSWER)).chat.completions.create(**ASK, **how)]
        assert [c.choices[0].delta.content for c in chunks if c.choices] == ["", "0", " 4", None]
        assert [c.choices[0].finish_reason for c in chunks if c.choices] == [None, None, None, "stop"]
        assert chunks[-1].usage.visual_tokens_kept == 4 and len({c.id for c in chunks}) == 1
        assert [m.id for m in (await stock(Told()).models.list()).data] == ["tiny"]

    asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_has_its_own_status_even_for_a_stream(stream):
    async def run():
        with pytest.raises(openai.BadRequestError, match="image 0: damaged"):
            await stock(Told(Refused(400, "image 0: damaged"))).chat.completions.create(**ASK, stream=stream)
        with pytest.raises(openai.RateLimitError):
            await stock(Told(Refused(429, "full"))).chat.completions.create(**ASK, stream=stream)
        with pytest.raises(openai.InternalServerError):
            await stock(Told(Refused(503, "died"))).chat.completions.create(**ASK, stream=stream)

    asyncio.run(run())


def test_an_error_after_the_first_word_ends_the_stream():
    async def run():
        chunks = await stock(Told(*ANSWER[:2], Refused(504, "late"))).chat.completions.create(**ASK, stream=True)
        with pytest.raises(openai.APIError, match="late"):
            [c async for c in chunks]

    asyncio.run(run())


def test_the_key(monkeypatch):
    monkeypatch.setenv("GP_TEST_KEY", "secret")

    async def run():
        async with client_of(Told(*ANSWER), key_from="GP_TEST_KEY") as client:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
                for ask in (
                    client.post("/v1/chat/completions", json=ASK, headers=headers),
                    client.get("/metrics", headers=headers),
                ):
                    done = await ask
                    assert done.status_code == 401 and done.json()["error"]["code"] == "invalid_api_key"
            assert (await client.get("/health")).status_code == 200
            done = await client.post("/v1/chat/completions", json=ASK, headers={"authorization": "Bearer secret"})
            assert done.status_code == 200

    asyncio.run(run())


def test_large_and_slow_bodies():
    async def slowly():
        yield b"{"
        await asyncio.sleep(5)

    async def run():
        async with client_of(Told(*ANSWER), limits=Limits(body_mib=0.01, read_s=0.2)) as client:
            done = await client.post("/v1/chat/completions", content=b" " * 20_000)
            assert done.status_code == 413 and done.json()["error"]["code"] == "request_too_large"
            assert (await client.post("/v1/chat/completions", content=slowly())).status_code == 408

    asyncio.run(run())


def test_unknown_paths_and_no_worker():
    async def run():
        pool = Told()
        async with client_of(pool) as client:
            for done in (await client.get("/v1/nothing"), await client.get("/v1/chat/completions")):
                assert done.status_code in (404, 405) and done.json()["error"]["message"]
            pool.is_healthy = False
            assert (await client.get("/health")).status_code == 503

    asyncio.run(run())


@pytest.mark.parametrize("events", [("wait",), (ANSWER[0], "wait")])
def test_whoever_goes_away_is_dropped(events):
    """The application is called as a web server calls it: the body, then a client that is gone."""
    pool = Told(*events)
    app = make_app(ServeConfig(ServedModel("tiny")), pool)
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [], "query_string": b""}
    messages = [{"type": "http.request", "body": json.dumps(ASK).encode()}, {"type": "http.disconnect"}]
    sent = []

    async def receive():
        if len(messages) == 1:
            await asyncio.sleep(0.1)
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(message):
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 5))
    assert len(pool.left) == 1 and sent[0]["status"] == 499


def test_the_counters():
    async def run():
        async with client_of(Told(*ANSWER)) as client:
            await client.post("/v1/chat/completions", json=ASK)
            await client.post("/v1/chat/completions", json={**ASK, "stream": True})
            await client.post("/v1/chat/completions", json={**ASK, "n": 2})
            return (await client.get("/metrics")).text

    page = asyncio.run(run())
    for line in ('gp_requests_total{status="200"} 2.0', 'gp_requests_total{status="400"} 1.0',
                 'gp_tokens_total{kind="visual_kept"} 8.0', 'gp_tokens_total{kind="completion"} 6.0',
                 "gp_answer_seconds_count 2.0", "gp_batch_requests_sum 4.0", "gp_requests_open 0.0"):  # fmt: skip
        assert line in page.splitlines()
