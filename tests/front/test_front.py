"""The front exchanges pictures and passes everything else on, both ways."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image, ImageChops

pytest.importorskip("starlette")

import httpx2
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import gp
from gp.embedded.cards.samples import draw_sample
from gp.embedded.cards.scene import SceneBuilder
from gp.front.app import make_app
from gp.front.looking import Looker
from gp.front.options import FrontConfig, load_front_config
from gp.serve.options import ServedModel

CONFIG = FrontConfig(ServedModel("tiny"), "http://behind/v1")
PIECES = [b'data: {"a": 1}\n\n', b"data: [DONE]\n\n"]


@pytest.fixture(scope="module")
def model():
    return gp.from_pretrained("tiny", glimpse="tiny")


@pytest.fixture(scope="module")
def samples():
    builder = SceneBuilder("test")
    return [draw_sample(builder, "color", 16, 16, seed) for seed in range(2)]


@pytest.fixture
def behind():
    """A server that notes what it is asked, and answers what it is told to."""
    seen: list[dict] = []

    async def complete(request):
        seen.append({"body": await request.json(), "key": request.headers.get("authorization")})
        if seen[-1]["body"].get("stream"):
            return StreamingResponse(iter(PIECES), media_type="text/event-stream")
        if seen[-1]["body"].get("model") == "none":
            return JSONResponse({"error": {"message": "no such model"}}, 404)
        return JSONResponse({"id": "1"})

    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    return seen, httpx2.ASGITransport(app=app)


@pytest.fixture
def front(model, behind):
    app = make_app(CONFIG, Looker(model, {"threshold": 0.1}), transport=behind[1])
    with TestClient(app) as client:
        yield lambda body, **more: client.post("/v1/chat/completions", json=body, **more)


def url(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def shown(image):
    return {"type": "image_url", "image_url": {"url": url(image)}}


def text(words):
    return {"type": "text", "text": words}


def pictures(parts):
    found = []
    for part in parts:
        if part["type"] == "image_url":
            content = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            found.append(Image.open(io.BytesIO(content)))
    return found


def same(one, other):
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None


def test_the_crops_are_those_of_zoom(model, samples, front, behind):
    for sample in samples:
        (image,), words = sample.images, sample.question.text
        assert front({"messages": [{"role": "user", "content": [shown(image), text(words)]}]}).json() == {"id": "1"}
        parts = behind[0][-1]["body"]["messages"][0]["content"]
        small, *crops = pictures(parts)
        answer = model.ask(image, words, pruner="zoom", threshold=0.1)
        assert small.size == (224, 224) and crops and parts[-1] == text(words)
        assert len(crops) == len(answer.crops)
        for crop, (_, box) in zip(crops, answer.crops):
            assert same(crop, image.crop(box))


def test_the_answer_is_that_of_zoom(model, samples):
    """The server behind has the same model here; it sees the whole small copy, so that is what zoom must keep."""
    looker = Looker(model, {"threshold": 0.1})
    for sample in samples:
        (image,), words = sample.images, sample.question.text
        content = [{"type": "image", "image": image}, text(words)]
        look = looker.look([{"role": "user", "content": content}], [image], {})
        behind = model.ask([*look.thumbnails, *look.crops], words, pruner="none")
        assert behind.text == model.ask(image, words, pruner="zoom", threshold=0.1).text == sample.question.answer


def test_what_has_no_pictures_stays_as_it_came(front, behind):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "2"},
    ]
    body = {"model": "x", "messages": messages, "tools": tools, "temperature": 0.3, "anything": [1]}
    front(body, headers={"authorization": "Bearer mine"})
    assert behind[0] == [{"body": body, "key": "Bearer mine"}]


def test_several_turns_and_pictures(samples, front, behind):
    one, other = samples[0].images[0], samples[1].images[0].resize((224, 336))
    messages = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": [text("look"), shown(one), text(samples[0].question.text)]},
        {"role": "assistant", "content": "1 2"},
        {"role": "user", "content": [shown(other), text("what number is on the red card ?")]},
    ]
    front({"messages": messages, "zoom": {"max_crops": 1}})
    sent = behind[0][-1]["body"]
    assert "zoom" not in sent and [m["role"] for m in sent["messages"]] == ["system", "user", "assistant", "user"]
    kinds = [[part["type"] for part in m["content"]] for m in sent["messages"] if isinstance(m["content"], list)]
    assert kinds[0] == ["text", "image_url", "text"]
    assert set(kinds[1][:-1]) == {"image_url"} and kinds[1][-1] == "text" and 1 <= len(kinds[1]) - 1 <= 3


def test_streams_and_errors_come_back_as_they_are(model, front):
    done = front({"messages": [{"role": "user", "content": "?"}], "stream": True})
    assert done.content == b"".join(PIECES) and done.headers["content-type"].startswith("text/event-stream")
    done = front({"messages": [{"role": "user", "content": "?"}], "model": "none"})
    assert done.status_code == 404 and done.json() == {"error": {"message": "no such model"}}

    def lost(request):
        raise httpx2.ConnectError("refused")

    app = make_app(CONFIG, Looker(model, {}), transport=httpx2.MockTransport(lost))
    with TestClient(app) as client:
        done = client.post("/v1/chat/completions", json={"messages": []})
        assert done.status_code == 502 and "http://behind/v1" in done.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": "hi"}, "expected a list"),
        ({"messages": [{"role": "user", "content": [shown(Image.new("RGB", (9000, 6000)))]}]}, "at most 50 megapixels"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://x/y"}]}]}, "data:image"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "expected {'url'"),
        (
            {"messages": [{"role": "user", "content": [shown(Image.new("RGB", (99, 99)))]}], "zoom": {"glanc": 1}},
            "glanc",
        ),
        (
            {"messages": [{"role": "user", "content": [shown(Image.new("RGB", (99, 99)))]}], "zoom": {"of": "os:x"}},
            "import",
        ),
        ({"messages": [], "zoom": 1}, "expected an object"),
    ],
)
def test_wrong_requests(front, behind, body, words):
    done = front(body)
    assert done.status_code == 400 and words in done.json()["error"]["message"] and not behind[0]


def test_options(monkeypatch, model):
    given = ["model.base=tiny", "upstream=http://127.0.0.1:1/v1", "zoom.threshold=0.1"]
    assert load_front_config(None, given).zoom == {"threshold": 0.1}
    with pytest.raises(ValueError, match="upstream must be an address"):
        load_front_config(None, ["model.base=tiny", "upstream=x"])
    monkeypatch.setenv("GP_TEST_KEY", "secret")
    with pytest.raises(ValueError, match="upstream_key_from"):
        load_front_config(None, [*given, "key_from=GP_TEST_KEY"])
    with pytest.raises(ValueError, match="zoom has no option 'glanc'"):
        Looker(model, {"glanc": 1})
