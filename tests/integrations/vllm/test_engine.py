"""Real vLLM with the plug-in against gp's own engine: the same method, the same budget, the same tokens."""

from __future__ import annotations

import pytest
import torch

import gp
from gp.asking import chat_inputs
from tests.support import vllm_plugin as plugin

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

BUDGET = 0.111
METHODS = ("divprune", "visionzip", "downsample", "random", "none")


@pytest.fixture(scope="module")
def model():
    return gp.from_pretrained("tiny", dtype="float32")


@pytest.fixture(scope="module", params=plugin.ENGINES.values(), ids=plugin.ENGINES)
def engine(request, tmp_path_factory):
    pruning = {"method": "divprune", "budget": BUDGET}
    with plugin.running(tmp_path_factory.mktemp("site"), pruning=pruning, **request.param) as made:
        yield made


def ours(model, request, method, budget=BUDGET, seed=0):
    """Ids of the greedy answer of gp's engine."""
    pictures, question = request
    inputs = chat_inputs(model.processor, pictures, [question])
    how = {} if method == "none" else {"budget": budget, "budget_scope": "image"}
    out = model.generate(**inputs, pruner=method, seed=seed, do_sample=False, max_new_tokens=6, **how)
    return out[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_those_of_gp(model, engine, method):
    requests = plugin.requests()
    if method == "random":  # gp draws once a prompt, vLLM's images are seen apart
        requests = [one for one in requests if len(one[0]) == 1]
    prompts = [plugin.prompt(plugin.processor(), one) for one in requests]
    wanted = [ours(model, one, method) for one in requests]
    pruning = {"method": method, "budget": BUDGET}
    assert plugin.answers(engine, prompts, pruning) == wanted
    assert plugin.answers(engine, prompts[::-1], pruning) == wanted[::-1]  # again, from what the engine has kept
    assert plugin.answers(engine, prompts[:1], pruning) == wanted[:1]  # alone
    keeps = engine.llm_engine.vllm_config.cache_config.enable_prefix_caching
    assert bool(plugin.generate(engine, prompts[:1], pruning)[0].num_cached_tokens) == keeps


def test_the_budget_of_the_engine_holds_where_a_request_says_nothing(model, engine):
    requests = plugin.requests()[:2]
    prompts = [plugin.prompt(plugin.processor(), one) for one in requests]
    assert plugin.answers(engine, prompts) == [ours(model, one, "divprune") for one in requests]
    half = {"budget": 0.5}
    assert plugin.answers(engine, prompts, half) == [ours(model, one, "divprune", 0.5) for one in requests]


def test_a_wrong_request_is_one_clear_error_and_the_next_one_is_answered(model, engine):
    request = plugin.requests()[0]
    prompt = plugin.prompt(plugin.processor(), request)
    with pytest.raises(ValueError, match=r"method must be one of none, random, .* got 'fastv'"):
        plugin.answers(engine, [prompt], {"method": "fastv"})
    with pytest.raises(ValueError, match="method 'glimpse' needs trained parts"):
        plugin.answers(engine, [prompt], {"method": "glimpse"})
    assert plugin.answers(engine, [prompt]) == [ours(model, request, "divprune")]


def test_what_is_kept_matters():
    """The comparison can fail: the methods do not all answer alike."""
    torch.manual_seed(0)
    model = gp.from_pretrained("tiny", dtype="float32")
    found = {tuple(map(tuple, (ours(model, one, method) for one in plugin.requests()))) for method in METHODS[:3]}
    assert len(found) > 1
