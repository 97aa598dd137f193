"""Many clients at once, good ones and bad ones, against a server of the embedded model.

python -m tests.support.serve_load 1000                  # figures as JSON
python -m tests.support.serve_load 0 workers=2           # only one at a time against eight at a time
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import httpx2
import openai
from PIL import Image

import gp
from gp.asking import conversation_inputs, picture_entry
from tests.support.serving import ROOT, children, resident_mib, served

BASE = "tiny"
CONCURRENCY = 16
BODY_MIB = 1
PATIENCE = 600  # times that a client asks again while a worker is started again, a second apart
QUESTIONS = (
    "what number is on the green card ?",
    "what number is on the red card ?",
    "what number is on the blue card ?",
)
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"budget": 0.05},
    {"budget": 0.3},
    {"max_keep_ratio": 0.1},
    {"threshold": 0.2},
    {"pruner": "none"},
    {"pruner": "fastv", "layer": 2, "budget": 0.5},
    {"pruner": "divprune", "budget": 0.2},
    {"pruner": "random", "budget": 0.2, "seed": 7},
    {"pruner": "zoom", "glance": 0.5},
)
SIZES = ((448, 448), (224, 224), (320, 240), (280, 448))
BAD = ("truncated", "no base64", "other format", "megapixels", "body", "option", "role")
ROUNDS = 3  # of so many requests one at a time, and the same eight at a time
KINDS = ("good",) * 70 + ("stream",) * 10 + ("slow",) * 2 + ("abort",) * 6 + ("hang up",) * 3 + ("bad",) * 9


@dataclass
class Question:
    """A good request: its messages for the server, and the answer that gp gives in this process."""

    messages: list[dict[str, Any]]
    way: dict[str, Any]
    answer: str
    counts: tuple[int, int]  # visual tokens kept, and all


@dataclass
class Tally:
    """What has happened."""

    counts: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)


def data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def entry(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def make_questions(count: int, rng: Random) -> list[Question]:
    """Questions of one turn to three about no image, one or two, each with a way to prune."""
    model = gp.from_pretrained(BASE, glimpse=BASE)
    scene = Image.open(ROOT / "docs" / "images" / "scene.png").convert("RGB")
    return [make_question(model, scene, WAYS[k % len(WAYS)], rng) for k in range(count)]


def make_question(model: Any, scene: Image.Image, way: dict[str, Any], rng: Random) -> Question:
    pictures = [scene.resize(rng.choice(SIZES)) for _ in range(rng.choice((0, 1, 1, 1, 1, 2)))]
    texts = [rng.choice(QUESTIONS) for _ in range(rng.choice((1, 1, 2, 3)))]
    sent, local = [], []
    for turn, text in enumerate(texts):
        shown = pictures if turn == 0 else []
        sent.append({"role": "user", "content": [*(entry(data_url(p)) for p in shown), {"type": "text", "text": text}]})
        local.append({"role": "user", "content": [*map(picture_entry, shown), {"type": "text", "text": text}]})
        if turn < len(texts) - 1:
            said = f"{rng.randrange(10)} {rng.randrange(10)}"
            sent.append({"role": "assistant", "content": said})
            local.append({"role": "assistant", "content": [{"type": "text", "text": said}]})
    if len(texts) == 1:
        answer = model.ask(pictures, texts[0], max_new_tokens=16, **way)
        return Question(sent, way, answer.text, (answer.num_kept, answer.num_visual))
    inputs = conversation_inputs(model.processor, local)
    out = model.generate(**inputs, **way, do_sample=False, max_new_tokens=16, return_dict_in_generate=True)
    new = out.sequences[0, inputs["input_ids"].shape[1] :]
    text = model.processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    return Question(sent, way, text, (out.num_kept[0], out.num_visual[0]))


def make_bad(kind: str, good: Question) -> tuple[dict[str, Any], int]:
    """The JSON of a request that is wrong in one way, and the status that it must get."""
    file = io.BytesIO()
    Image.new("RGB", (200, 200)).save(file, "GIF")
    noise = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(noise, "PNG")
    urls = {
        "truncated": "data:image/png;base64," + base64.b64encode(noise.getvalue()[:9000]).decode(),
        "no base64": "data:image/png;base64,?!",
        "other format": "data:image/gif;base64," + base64.b64encode(file.getvalue()).decode(),
        "megapixels": data_url(Image.new("L", (3000, 3000))),
        "body": "data:image/png;base64," + "A" * (2 * BODY_MIB << 20),
    }
    if kind in urls:
        content = [entry(urls[kind]), {"type": "text", "text": QUESTIONS[0]}]
        return {"messages": [{"role": "user", "content": content}]}, 413 if kind == "body" else 400
    if kind == "option":
        return {"messages": good.messages, "max_keep_rati": 0.1}, 400
    return {"messages": [{"role": "king", "content": "?"}]}, 400


class Load:
    """Clients of one server."""

    def __init__(self, address: str, questions: list[Question], seed: int) -> None:
        self.address, self.questions, self.rng = address, questions, Random(seed)
        self.tally = Tally()
        self.client = openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=PATIENCE, timeout=300)
        self.raw = httpx2.AsyncClient(base_url=address.removesuffix("/v1"), timeout=300)

    async def one(self, kind: str) -> None:
        question = self.rng.choice(self.questions)
        work = {"good": self.good, "stream": self.stream, "slow": self.slow, "abort": self.abort, "bad": self.bad}
        await work.get(kind, self.hang_up)(question)
        self.tally.counts[kind] += 1

    async def good(self, question: Question) -> None:
        start = time.monotonic()
        made = await self.client.chat.completions.create(
            model=BASE, messages=question.messages, max_tokens=16, extra_body=question.way
        )
        self.tally.seconds.append(time.monotonic() - start)
        usage = made.usage
        self.compare(question, made.choices[0].message.content, (usage.visual_tokens_kept, usage.visual_tokens))

    async def stream(self, question: Question) -> None:
        """Broken streams are asked again: the client cannot do so by itself."""
        how = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 16, "model": BASE}
        for _ in range(PATIENCE):
            try:
                start, text, usage = time.monotonic(), "", None
                chunks = await self.client.chat.completions.create(
                    messages=question.messages, extra_body=question.way, **how
                )
                async for chunk in chunks:
                    if not text and usage is None:
                        first = time.monotonic() - start
                    text += chunk.choices[0].delta.content or "" if chunk.choices else ""
                    usage = chunk.usage or usage
                break
            except openai.APIError:
                self.tally.counts["stream asked again"] += 1
        self.tally.first.append(first)
        self.compare(question, text, (usage.visual_tokens_kept, usage.visual_tokens))

    async def slow(self, question: Question) -> None:
        """Sends its body in pieces, over a second."""
        body = json.dumps({"messages": question.messages, "max_tokens": 16, **question.way}).encode()

        async def pieces():
            for start in range(0, len(body), len(body) // 10 + 1):
                await asyncio.sleep(0.1)
                yield body[start : start + len(body) // 10 + 1]

        done = await self.send(lambda: {"content": pieces()})
        made = done.json()
        counts = (made["usage"]["visual_tokens_kept"], made["usage"]["visual_tokens"])
        self.compare(question, made["choices"][0]["message"]["content"], counts)

    async def abort(self, question: Question) -> None:
        """Goes away while it waits."""
        doing = asyncio.ensure_future(self.good(question))
        await asyncio.sleep(self.rng.uniform(0.01, 0.5))
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)

    async def hang_up(self, question: Question) -> None:
        """Ends in the middle of its body, as a killed client does."""
        host, _, port = self.address.removeprefix("http://").removesuffix("/v1").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
        writer.write(head.encode() + b'{"messages": [')
        await writer.drain()
        writer.transport.abort()

    async def bad(self, question: Question) -> None:
        kind = self.rng.choice(BAD)
        body, status = make_bad(kind, question)
        done = await self.send(lambda: {"json": body})
        if done.status_code != status or not done.json()["error"]["message"]:
            self.tally.wrong.append(f"{kind}: expected {status}, got {done.status_code} {done.text[:200]}")

    async def send(self, make: Any) -> httpx2.Response:
        """Posts without OpenAI's client; asks again where that would."""
        for _ in range(PATIENCE):
            done = await self.raw.post("/v1/chat/completions", **make())
            if done.status_code not in (429, 503):
                break
            await asyncio.sleep(1)
        return done

    def compare(self, question: Question, text: str, counts: tuple[int, int]) -> None:
        if (text, counts) != (question.answer, question.counts):
            expected = (question.answer, question.counts)
            self.tally.wrong.append(f"{question.way}: expected {expected}, got {(text, counts)}")


async def together(load: Load, kinds: list[str], concurrency: int, at: dict[int, Any]) -> float:
    """Sends requests, so many at a time; `at` has what to do before which one. Returns seconds."""
    todo = iter(list(enumerate(kinds)))

    async def client() -> None:
        for number, kind in todo:
            if number in at:
                at[number]()
            await load.one(kind)
            if number % 50 == 0:
                print(f"{number} of {len(kinds)} sent, {len(load.tally.wrong)} wrong", file=sys.stderr, flush=True)

    start = time.monotonic()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    return time.monotonic() - start


def percentile(values: list[float], share: float) -> float | None:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else None


def run(count: int, log: Path, seed: int = 0, more: Sequence[str] = ()) -> dict[str, Any]:
    """Starts a server, sends `count` requests at concurrency 16, kills a worker on the way, and says what came.

    Then requests that can share a batch, one at a time and eight at a time in turn. `more`: options of the server.
    """
    questions = make_questions(3 * len(WAYS), Random(seed))
    settings = (f"model.base={BASE}", f"model.glimpse={BASE}", "port=0", f"limits.body_mib={BODY_MIB}")
    limits = ("limits.image_megapixels=4", "limits.batch_wait_ms=10", "limits.time_s=600")
    with served("gp.serve", (*settings, *limits, *more), log) as (address, process):
        load, memory = Load(address, questions, seed), {}
        kinds = [load.rng.choice(KINDS) for _ in range(count)]

        def kill_worker() -> None:
            os.kill(children(process.pid)[0], signal.SIGKILL)

        def remember(when: str) -> None:
            memory[when] = [resident_mib(process.pid), *map(resident_mib, children(process.pid))]

        at: dict[int, Any] = {count * k // 8: partial(remember, f"{k}/8") for k in range(2, 8)} if count else {}
        at[count // 10] = kill_worker
        seconds = asyncio.run(together(load, kinds, CONCURRENCY, at))
        remember("8/8")
        tally = load.tally
        rounds = [{c: asyncio.run(alike(address, questions, c)) for c in (1, 8)} for _ in range(ROUNDS)]
        remember("end")
        page = httpx2.get(address.removesuffix("/v1") + "/metrics").text
    return {
        "requests": dict(tally.counts),
        "wrong": tally.wrong,
        "seconds": seconds,
        "p50_s": percentile(tally.seconds, 0.5),
        "p99_s": percentile(tally.seconds, 0.99),
        "longest_s": percentile(tally.seconds, 1),
        "first_p99_s": percentile(tally.first, 0.99),
        "mib": memory,
        "requests_per_s": {str(c): [one[c] for one in rounds] for c in (1, 8)},
        "eight_by_one": median(one[8] / one[1] for one in rounds),
        "metrics": [line for line in page.splitlines() if line.startswith(("gp_requests", "gp_worker"))],
    }


async def alike(address: str, questions: list[Question], concurrency: int, count: int = 48) -> float:
    """Requests a second of questions that can share a batch, all of them answered rightly."""
    load = Load(address, [one for one in questions if not one.way], 0)
    seconds = await together(load, ["good"] * count, concurrency, {})
    assert not load.tally.wrong, load.tally.wrong
    return count / seconds


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(int(sys.argv[1]), Path(folder) / "log", more=sys.argv[2:]), indent=1))
