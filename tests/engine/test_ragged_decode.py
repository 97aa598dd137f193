"""Layers that hold different numbers of tokens: a pruned run equals the whole run in which dropped keys are masked."""

from __future__ import annotations

import pytest
import torch
from transformers import CompileConfig

from gp.model import GlimpseModel
from gp.pruners import make_baseline
from gp.types import PruneOptions
from tests.support.ragged import rows_alone
from tests.support.stock import embedded
from tests.support.tiny_models import FAMILIES, Family

pytestmark = pytest.mark.core

LAYERS = 8
RAGGED = [([(4, 6)], 9), ([(2, 3), (6, 4)], 7), ([], 5)]
METHODS = ["fastv", "pyramid_drop", "vscan"]
HALF = PruneOptions(fixed_keep_ratio=0.5)
NEW = 5
GREEDY = {"max_new_tokens": NEW, "do_sample": False}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def base(family):
    return family.make(layers=LAYERS)


@pytest.fixture(scope="module")
def model(base) -> GlimpseModel:
    return GlimpseModel(base)


@pytest.fixture(scope="module")
def prompts(family):
    return family.fit(RAGGED)


def merged_by_hand(features: torch.Tensor, kept: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """VScan's merging, token by token."""
    out, start = features.clone(), 0
    for size in sizes:
        here = range(start, start + size)
        groups = {j: [features[j]] for j in here if kept[j]}
        for j in here:
            if not kept[j]:
                similar = {k: float(torch.cosine_similarity(features[j], features[k], dim=0)) for k in groups}
                groups[max(similar, key=similar.get)].append(features[j])
        for j, group in groups.items():
            out[j] = torch.stack(group).mean(0)
        start += size
    return out


def reference_logits(base, inputs, done, new_ids, merge: bool) -> torch.Tensor:
    """The stock layers on the whole sequence, nothing dropped; at layer i a visual key is seen by anyone only if i is
    among the layers that worked on it. Returns the logits that predict each new token, [B, new, vocabulary].
    """
    text, ids = base.model.language_model, torch.cat([inputs["input_ids"], new_ids], 1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(new_ids)], 1).bool()
    length, prompt = ids.shape[1], inputs["input_ids"].shape[1]
    visual = (ids == base.config.image_token_id) & (torch.arange(length) < prompt) & mask
    hidden, positions, deepstack = embedded(base, ids, mask, visual, inputs)
    if merge:
        sizes = [h * w for h, w in done.full_layout.grids]
        hidden[visual] = merged_by_hand(hidden[visual], done.layers_run > 0, sizes)
    layers_run = torch.full(ids.shape, LAYERS).masked_scatter(visual, done.layers_run)
    causal = torch.ones(length, length, dtype=torch.bool).tril() & mask[:, None, None, :]
    own = torch.eye(length, dtype=torch.bool)  # padded and dropped rows need something to look at
    rotary = text.rotary_emb(hidden, positions)
    for index, layer in enumerate(text.layers):
        allowed = (causal & (layers_run > index)[:, None, None, :]) | own
        bias = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(hidden.dtype).min)
        hidden = layer(hidden, attention_mask=bias, position_embeddings=rotary)
        if index < len(deepstack):
            hidden = text._deepstack_process(hidden, visual, deepstack[index])
    return base.lm_head(text.norm(hidden))[:, prompt - 1 : -1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("rows", [slice(0, 3), slice(1, 2)], ids=["ragged batch", "two images"])
def test_prefill_and_greedy_decoding_equal_masking(family, prompts, name, attention, rows):
    base = family.make(layers=LAYERS, attn_implementation=attention)
    model, inputs = GlimpseModel(base), family.inputs(prompts[rows])
    done = model.prefill(inputs, name, HALF)
    assert done.cache_masks.is_ragged and len({layer.keys.shape[2] for layer in done.cache.layers}) >= 2
    out = model.generate(
        **inputs, pruner=name, options=HALF, **GREEDY, return_dict_in_generate=True, output_logits=True
    )
    new_ids = out.sequences[:, -NEW:]
    expected = reference_logits(base, inputs, done, new_ids, merge=name == "vscan")
    torch.testing.assert_close(done.logits[:, -1], expected[:, 0], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(torch.stack(out.logits, 1), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_beams_score_their_sequences_as_masking_does(family, base, model, prompts, name):
    """Whichever sequences the beams end in: their score is the mean log-probability of their tokens."""
    inputs, how = family.inputs(prompts), {"num_beams": 2, "num_return_sequences": 2}
    out = model.generate(
        **inputs, pruner=name, options=HALF, **GREEDY, **how, return_dict_in_generate=True, output_scores=True
    )
    done = model.prefill(inputs, name, HALF)
    for beam in range(2):
        new_ids = out.sequences[beam::2, -NEW:]
        logits = reference_logits(base, inputs, done, new_ids, merge=name == "vscan")
        expected = logits.log_softmax(-1).gather(2, new_ids.unsqueeze(2)).mean((1, 2))
        torch.testing.assert_close(out.sequences_scores[beam::2], expected, atol=1e-4, rtol=1e-4)
    came_from = out.beam_indices[:, :NEW]
    assert (came_from != came_from[:, :1]).any()  # caches were reordered on the way


@pytest.mark.parametrize("name", METHODS)
def test_a_row_decodes_as_if_it_were_alone(family, model, prompts, name):
    inputs = family.inputs(prompts)
    together = model.generate(**inputs, pruner=name, options=HALF, **GREEDY)
    for row, single in enumerate(rows_alone(inputs, prompts)):
        alone = model.generate(**single, pruner=name, options=HALF, **GREEDY)
        assert torch.equal(alone[0, -NEW:], together[row, -NEW:])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "how",
    [
        {"cache_implementation": "static"},
        {"cache_implementation": "static", "num_beams": 2},
        {"num_return_sequences": 2, "do_sample": True},
    ],
    ids=str,
)
def test_other_caches_give_the_same_answers(family, model, prompts, name, how):
    inputs, how = family.inputs(prompts), {**GREEDY, **how}
    plain = {key: value for key, value in how.items() if key != "cache_implementation"}
    torch.manual_seed(3)
    expected = model.generate(**inputs, pruner=name, options=HALF, **plain)
    torch.manual_seed(3)
    assert torch.equal(model.generate(**inputs, pruner=name, options=HALF, **how), expected)


def test_no_decoding_step_is_compiled_as_the_stock_model(family, model, prompts):
    """With a static cache `generate` would compile the stock model's call, on a GPU or when asked for any device."""
    compiled = CompileConfig(backend="eager")
    compiled._compile_all_devices = True
    inputs, how = family.inputs(prompts), {"pruner": "fastv", "options": HALF, **GREEDY}
    static = model.generate(**inputs, **how, cache_implementation="static", compile_config=compiled)
    assert torch.equal(static, model.generate(**inputs, **how))


def test_dropping_nothing_in_stages_changes_nothing(family, base, model, prompts):
    inputs = family.inputs(prompts)
    expected = base.generate(**inputs, **GREEDY)
    for name in METHODS:
        assert torch.equal(model.generate(**inputs, pruner=name, fixed_keep_ratio=1.0, **GREEDY), expected)


def test_a_compacted_cache_is_not_ragged(family, model, prompts):
    inputs = family.inputs(prompts)
    for name in METHODS:
        pruner = make_baseline(name, model.backbone, settings={"compact_cache": True})
        done = model.prefill(inputs, pruner, HALF)
        assert not done.cache_masks.is_ragged and len({layer.keys.shape[2] for layer in done.cache.layers}) == 1
