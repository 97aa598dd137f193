"""Qwen3-VL and LLaVA in real vLLM against gp's own engine, on random bases: same method, same budget, same ids."""

from __future__ import annotations

import importlib

import pytest
import torch

import gp
from gp.asking import chat_inputs
from gp.formats.glimpse_folder import save_glimpse
from tests.support import vllm_bases as bases
from tests.support import vllm_plugin as plugin
from tests.support.glimpses import micro_glimpse

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

BUDGET = 0.3
METHODS = {
    "qwen3_vl": ("none", "random", "downsample", "divprune", "visionzip"),
    "llava": ("none", "random", "divprune", "visionzip"),
}


@pytest.fixture(scope="module", params=METHODS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def base(family, tmp_path_factory):
    return bases.save_stock(family, tmp_path_factory.mktemp("bases") / family)


@pytest.fixture(scope="module")
def model(base):
    return gp.from_pretrained(base, dtype="float32")


@pytest.fixture(scope="module")
def looking(base, tmp_path_factory):
    """The base with random trained parts, read in a twig, and their folder."""
    made = micro_glimpse(gp.from_pretrained(base, dtype="float32").base, prune_layer=1, twig=1, read_layers=[0, 2])
    made.glimpse.twig.start_from(made.backbone)
    folder = save_glimpse(tmp_path_factory.mktemp("glimpse"), made.glimpse, made.backbone, gp.PruneOptions())
    return gp.from_pretrained(base, glimpse=folder, dtype="float32"), folder


@pytest.fixture(scope="module", params=plugin.ENGINES.values(), ids=plugin.ENGINES)
def engine(request, base, looking, tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    pruning = {"method": "divprune", "budget": BUDGET, "glimpse": str(looking[1])}
    with plugin.running(site, base=base, pruning=pruning, max_model_len=1024, **request.param) as made:
        yield made


def ours(model, request, method):
    """Ids of the greedy answer of gp's engine."""
    pictures, question = request
    inputs = chat_inputs(model.processor, pictures, [question])
    how = {} if method == "none" else {"budget": BUDGET, "budget_scope": "image"}
    out = model.generate(**inputs, pruner=method, do_sample=False, max_new_tokens=6, **how)
    return out[0, inputs["input_ids"].shape[1] :].tolist()


def test_answers_are_those_of_gp(family, model, engine):
    found = {}
    for method in METHODS[family]:
        requests = bases.requests()
        if method == "random":  # gp draws once a prompt, vLLM's images are seen apart
            requests = [one for one in requests if len(one[0]) == 1]
        prompts = [plugin.prompt(model.processor, one) for one in requests]
        wanted = [ours(model, one, method) for one in requests]
        pruning = {"method": method, "budget": BUDGET}
        assert plugin.answers(engine, prompts, pruning) == wanted, method
        assert plugin.answers(engine, prompts[::-1], pruning) == wanted[::-1], method  # from what the engine has kept
        assert plugin.answers(engine, prompts[:1], pruning) == wanted[:1], method  # alone
        found[method] = str(wanted[:4])
    assert len(set(found.values())) == len(found)  # the methods do not answer alike, so the comparison can fail


def test_what_a_family_cannot_do_is_refused(family, model, engine):
    request = bases.requests()[0]
    prompt = plugin.prompt(model.processor, request)
    if family == "llava":
        with pytest.raises(ValueError, match="method 'downsample' does not work here: LLaVA"):
            plugin.answers(engine, [prompt], {"method": "downsample"})
        module = importlib.import_module("gp.integrations.vllm.llava")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "MORE_POSITIONS", 0)
            with pytest.raises(ValueError, match=r"lose 18 tokens, .* could come to position 1042, .* decoder has 0"):
                plugin.answers(engine, [prompt])
    ends = {**prompt, "prompt": prompt["prompt"][: prompt["prompt"].index("is here") - len("what ")].rstrip()}
    ends["prompt"] = ends["prompt"].removesuffix("<|vision_end|>")
    with pytest.raises(ValueError, match="the prompt ends with an image"):
        plugin.answers(engine, [ends])
    assert plugin.answers(engine, [prompt]) == [ours(model, request, "divprune")]  # the engine goes on


def test_the_glimpse_decides_with_the_question_and_the_decoder_starts_without_the_rest(model, looking, engine):
    requests = bases.requests()
    prompts = [plugin.prompt(model.processor, one) for one in requests]
    wanted = [plugin.before_first_layer(looking[0], model, one, BUDGET) for one in requests]
    pruning = {"method": "glimpse", "budget": BUDGET}
    assert plugin.answers(engine, prompts, pruning) == wanted
    assert plugin.answers(engine, prompts[::-1], pruning) == wanted[::-1]  # from what the engine has kept
    masks = [plugin.decided(looking[0], one, BUDGET)[0] for one in (requests[0], requests[-1])]
    assert not torch.equal(*masks)  # one picture and two questions
