"""A batch of requests is answered as `ask` answers each alone."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import torch

import gp
from gp.serve.answering import answer
from gp.serve.events import Begun, Ended, Failed, Job, Text
from gp.serve.options import ServeConfig, ServedModel
from gp.serve.preparing import prepare
from gp.serve.refusing import Refused
from gp.serve.request import parse

SCENE = Path(__file__).resolve().parents[2] / "docs" / "images" / "scene.png"
SHOWN = {"type": "image_url", "image_url": "data:image/png;base64," + base64.b64encode(SCENE.read_bytes()).decode()}
GREEN, RED = "what number is on the green card ?", "what number is on the red card ?"
CONFIG = ServeConfig(ServedModel("tiny"))


@pytest.fixture(scope="module")
def model():
    return gp.from_pretrained("tiny", glimpse="tiny")


def prepared(model, number, question, images=1, **more):
    content = [SHOWN] * images + [{"type": "text", "text": question}]
    body = json.dumps({"messages": [{"role": "user", "content": content}], "max_tokens": 8, **more}).encode()
    return prepare(model, Job(number, parse(body, CONFIG), float("inf")), CONFIG)


def told(model, batch, is_dropped=lambda number: False):
    events: list = []
    answer(model, batch, events.append, is_dropped)
    return events


def test_a_batch_equals_ask(model):
    ways = [{}, {"budget": 0.5}, {"max_keep_ratio": 0.05}, {"num_keep": 9}, {"threshold": 0.2}]
    cases = [(GREEN, 1, way) for way in ways] + [(RED, 0, {}), (RED, 2, {}), (GREEN, 1, {"stream": True})]
    batch = [prepared(model, k, question, images, **way) for k, (question, images, way) in enumerate(cases)]
    assert len({one.group for one in batch}) == 1
    events = told(model, batch)
    for k, (question, images, way) in enumerate(cases):
        way = {name: value for name, value in way.items() if name != "stream"}
        alone = model.ask([SCENE] * images, question, max_new_tokens=8, **way)
        (begun,) = [e for e in events if isinstance(e, Begun) and e.number == k]
        (ended,) = [e for e in events if isinstance(e, Ended) and e.number == k]
        assert (ended.text, begun.visual_kept, begun.visual_all) == (alone.text, alone.num_kept, alone.num_visual)
        pieces = [e.text for e in events if isinstance(e, Text) and e.number == k]
        assert "".join(pieces) + ended.rest == ended.text if k == 7 else not pieces
        assert begun.batch == len(cases) and ended.reason == "stop"


def test_every_row_ends_by_itself(model):
    batch = [
        prepared(model, 0, GREEN, max_tokens=1),
        prepared(model, 1, GREEN),
        prepared(model, 2, GREEN, stop=["3"]),
        prepared(model, 3, GREEN),
    ]
    ends = {e.number: e for e in told(model, batch, lambda number: number == 3) if isinstance(e, Ended)}
    assert (ends[0].text, ends[0].reason, ends[0].tokens) == ("5", "length", 1)
    assert (ends[1].text, ends[1].reason, ends[1].tokens) == ("5 3", "stop", 3)
    assert (ends[2].text, ends[2].reason) == ("5", "stop")
    assert 3 not in ends


def test_what_shares_a_batch(model):
    group = lambda **more: prepared(model, more.pop("number", 0), GREEN, **more).group  # noqa: E731
    assert group() == group(budget=0.1) == group(max_tokens=3) == group(number=1)
    others = [
        group(pruner="fastv", layer=1, budget=0.5),
        group(pruner="fastv", layer=2, budget=0.5),
        group(pruner="none"),
        group(temperature=1),
    ]
    assert len({group(), *others}) == 5
    assert group(temperature=1) == group(temperature=1, number=1)
    assert group(temperature=1, seed=1) != group(temperature=1, seed=1, number=1)


def test_a_seed_draws_the_same_again(model):
    before = torch.random.get_rng_state()
    texts = {
        e.text
        for number in range(2)
        for e in told(model, [prepared(model, number, GREEN, temperature=2, seed=5)])
        if isinstance(e, Ended)
    }
    assert len(texts) == 1 and torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_keep_rati": 0.1}, "nearest known one is 'max_keep_ratio'"),
        ({"num_beams": 3}, "unknown key"),
        ({"budget": 3}, "must be in"),
        ({"pruner": "fast"}, "nearest known one is 'fastv'"),
        ({"pruner": "oracle"}, "evidence masks"),
        ({"pruner": "zoom", "glance": 2}, "glance must be in"),
    ],
)
def test_wrong_options(model, more, words):
    with pytest.raises(Refused, match=words) as error:
        prepared(model, 0, GREEN, **more)
    assert error.value.status == 400


def test_a_text_that_stands_for_an_image_and_long_prompts(model):
    with pytest.raises(Refused, match="stands for an image"):
        prepared(model, 0, "<|image_pad|>")
    with pytest.raises(Refused, match="at most 32768 are taken"):
        prepared(model, 0, GREEN + " ?" * 40000)


def test_one_that_fails_does_not_take_the_others_along(model, monkeypatch):
    batch = [prepared(model, 0, GREEN), prepared(model, 1, RED)]
    prefill = model.prefill

    def full(inputs, *more, **kwargs):
        if len(inputs["input_ids"]) > 1 or torch.equal(inputs["input_ids"], batch[1].inputs["input_ids"]):
            raise torch.OutOfMemoryError("no room")
        return prefill(inputs, *more, **kwargs)

    monkeypatch.setattr(model, "prefill", full, raising=False)
    events = told(model, batch)
    assert [e.text for e in events if isinstance(e, Ended)] == ["5 3"]
    (failed,) = [e for e in events if isinstance(e, Failed)]
    assert failed.number == 1 and failed.why.status == 503
