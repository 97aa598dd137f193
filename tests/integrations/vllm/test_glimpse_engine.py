"""The glimpse in real vLLM: gp's decision, taken with the question, then a decoder that never sees the other tokens."""

from __future__ import annotations

import pytest
import torch

import gp
from gp.asking import chat_inputs
from tests.support import vllm_plugin as plugin

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

BUDGETS = (0.05, 0.02)
SETTINGS = {"method": "glimpse", "glimpse": "tiny", "budget": BUDGETS[0]}


@pytest.fixture(scope="module")
def model():
    return gp.from_pretrained("tiny", glimpse="tiny", dtype="float32")


@pytest.fixture(scope="module")
def plain():
    return gp.from_pretrained("tiny", dtype="float32")


@pytest.fixture(scope="module", params=plugin.ENGINES.values(), ids=plugin.ENGINES)
def engine(request, tmp_path_factory):
    with plugin.running(tmp_path_factory.mktemp("site"), pruning=SETTINGS, **request.param) as made:
        yield made


@pytest.mark.parametrize("budget", BUDGETS)
def test_answers_are_those_of_the_decision_before_the_first_layer(model, plain, engine, budget):
    requests = plugin.requests()
    prompts = [plugin.prompt(plugin.processor(), one) for one in requests]
    reference = [plugin.before_first_layer(model, plain, one, budget) for one in requests]
    pruning = {"method": "glimpse", "budget": budget}
    assert plugin.answers(engine, prompts, pruning) == reference
    assert plugin.answers(engine, prompts[::-1], pruning) == reference[::-1]  # again, from what the engine has kept
    assert plugin.answers(engine, prompts[:1], pruning) == reference[:1]  # alone
    again = plugin.generate(engine, prompts[:1], pruning)[0]
    counts = sum(int(mask.sum()) for mask in plugin.decided(model, requests[0], budget))
    image_token = model.backbone.image_token_id
    assert again.prompt_token_ids.count(image_token) == counts  # as many as the budget says


def test_two_questions_about_one_image_keep_other_tokens(model, plain, engine):
    pictures, question = plugin.requests()[0]
    other = question.replace("red", "green")
    requests = [(pictures, question), (pictures, other)]
    masks = [plugin.decided(model, one, BUDGETS[0])[0] for one in requests]
    assert not torch.equal(*masks)  # or the comparison could not fail
    reference = [plugin.before_first_layer(model, plain, one, BUDGETS[0]) for one in requests]
    prompts = [plugin.prompt(plugin.processor(), one) for one in requests]
    assert plugin.answers(engine, prompts) == reference
    assert plugin.answers(engine, prompts[::-1]) == reference[::-1]
    crossed = plain.generate(
        **chat_inputs(plain.processor, pictures, [other]),
        pruner="oracle",
        evidence_masks=masks[:1],
        num_keep=int(masks[0].sum()),
        do_sample=False,
        max_new_tokens=6,
    )
    assert crossed[0, -len(reference[1]) :].tolist() != reference[1]  # the other question's tokens would tell


def test_other_methods_share_the_engine(plain, engine):
    request = plugin.requests()[0]
    prompt = plugin.prompt(plugin.processor(), request)
    inputs = chat_inputs(plain.processor, *(request[0], [request[1]]))
    for method in ("divprune", "none"):
        how = {} if method == "none" else {"budget": 0.2, "budget_scope": "image"}
        out = plain.generate(**inputs, pruner=method, do_sample=False, max_new_tokens=6, **how)
        expected = out[0, inputs["input_ids"].shape[1] :].tolist()
        assert plugin.answers(engine, [prompt], {"method": method, "budget": 0.2}) == [expected]


def test_parts_are_the_engine_s(engine):
    prompt = plugin.prompt(plugin.processor(), plugin.requests()[0])
    with pytest.raises(ValueError, match="glimpse is the engine's"):
        plugin.answers(engine, [prompt], {"method": "glimpse", "glimpse": "elsewhere"})
