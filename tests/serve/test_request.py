"""What a request means, and that everything else is refused by the name of its key."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image

from gp.config.table import options_of
from gp.serve.options import ServeConfig, ServedModel, load_serve_config
from gp.serve.refusing import Refused
from gp.serve.request import Message, parse

CONFIG = ServeConfig(ServedModel("tiny"))


def url(kind="PNG", size=(30, 20)):
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(file.getvalue()).decode()


def shown(address):
    return {"type": "image_url", "image_url": {"url": address}}


def ask(content="?", **more):
    return parse(json.dumps({"messages": [{"role": "user", "content": content}], **more}).encode(), CONFIG)


def test_a_conversation_with_pictures():
    messages = [
        {"role": "system", "content": "be short"},
        {
            "role": "user",
            "content": [
                shown(url()),
                {"type": "text", "text": "one ?"},
                {"type": "image_url", "image_url": url("JPEG")},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "1"}]},
        {"role": "user", "content": [{"type": "text", "text": "two ?"}, shown(url("WEBP"))]},
    ]
    body = {"model": "tiny", "messages": messages, "max_completion_tokens": 9, "stop": "x", "stream": True, "seed": 3}
    made = parse(json.dumps({**body, "stream_options": {"include_usage": True}, "user": "me", "n": 1}).encode(), CONFIG)
    assert made.messages == (
        Message("system", ("be short",)),
        Message("user", (0, "one ?", 1)),
        Message("assistant", ("1",)),
        Message("user", ("two ?", 2)),
    )
    assert [Image.open(io.BytesIO(one)).format for one in made.pictures] == ["PNG", "JPEG", "WEBP"]
    assert (made.max_tokens, made.stop, made.stream, made.usage_at_end, made.seed) == (9, ("x",), True, True, 3)
    assert made.temperature == 0 and not made.pruning


def test_what_is_left_is_for_the_method():
    made = ask(pruner="fastv", layer=2, budget=0.1, max_tokens=4)
    assert made.pruner == "fastv" and made.pruning == {"layer": 2, "budget": 0.1} and made.max_tokens == 4
    assert ask().max_tokens == CONFIG.limits.new_tokens


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": 1}, "stream_options"),
        ({"pruner": "os:path"}, "pruner"),
        ({"pruner": "zoom(os:path)"}, "pruner"),
        ({"pruner": 1}, "pruner"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "king", "content": "?"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": "?"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ],
)
def test_wrong_values(more, param):
    with pytest.raises(Refused) as error:
        ask(**more)
    assert error.value.status == 400 and error.value.param == param and param in error.value.message


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (shown("http://169.254.169.254/x.png"), "opens no addresses"),
        (shown("file:///etc/passwd"), "expected data:image"),
        (shown("data:text/html;base64,AAAA"), "expected data:image"),
        (shown("data:image/png;base64,?"), "not base64"),
        (shown("data:image/png;base64,AAAA"), "expected JPEG, PNG or WebP"),
        (shown(url("GIF")), "expected JPEG, PNG or WebP"),
        (shown(url("PNG", (10000, 6000))), "at most 50 megapixels, got 10000 x 6000 px"),
        ({"type": "image_url"}, "expected {'url'"),
        ({"type": "audio"}, "parts of type text or image_url"),
        ("text", "parts of type text or image_url"),
        ({"type": "text", "text": 1}, "expected text"),
    ],
)
def test_wrong_parts(part, words):
    with pytest.raises(Refused, match=words) as error:
        ask([{"type": "text", "text": "?"}, part])
    assert error.value.status == 400 and error.value.param.startswith("messages[0].content[1]")


def test_other_refusals():
    with pytest.raises(Refused) as error:
        ask(model="gpt")
    assert error.value.status == 404 and "'tiny'" in error.value.message
    for body in (b"", b"{", b"[]", b"\xff", b'{"messages": NaN}', b"[" * 100_000):
        with pytest.raises(Refused) as error:
            parse(body, CONFIG)
        assert error.value.status == 400
    with pytest.raises(Refused, match="more than 16 images"):
        ask([shown(url())] * 17)


def test_options(monkeypatch):
    config = load_serve_config(None, ["model.base=tiny", "devices=cuda:0,cuda:1", "prune.budget=0.1", "port=0"])
    assert config.devices == ["cuda:0", "cuda:1"] and config.prune == {"budget": 0.1} and config.model_name == "tiny"
    with pytest.raises(ValueError, match="key_from=VARIABLE, or open=true"):
        load_serve_config(None, ["model.base=tiny", "host=0.0.0.0"])
    assert load_serve_config(None, ["model.base=tiny", "host=0.0.0.0", "open=true"]).host == "0.0.0.0"
    with pytest.raises(ValueError, match="GP_TEST_KEY: this environment variable is not set"):
        load_serve_config(None, ["model.base=tiny", "key_from=GP_TEST_KEY"])
    monkeypatch.setenv("GP_TEST_KEY", "secret")
    assert load_serve_config(None, ["model.base=tiny", "host=0.0.0.0", "key_from=GP_TEST_KEY"]).key == "secret"
    with pytest.raises(ValueError, match=r"nearest known one is 'limits\.waiting'"):
        load_serve_config(None, ["model.base=tiny", "limits.wating=3"])


def test_help_lists_every_option(capsys):
    from gp.front import __main__ as front
    from gp.front.options import FrontConfig
    from gp.serve import __main__ as serve

    for command, schema in ((serve, ServeConfig), (front, FrontConfig)):
        with pytest.raises(SystemExit) as stop:
            command.parse(["--help"])
        printed = capsys.readouterr().out
        assert stop.value.code == 0 and all(f"  {one.key} " in printed for one in options_of(schema))
