"""Everything that `generate` offers works behind a pruned prefill."""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import LogitsProcessor, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from gp.backbones import CACHE
from gp.engine.generation import (
    ALIGNED,
    GREEDY,
    SPARE_TOKENS,
    SWAYING,
    GrowingMask,
    Handover,
    notice_of_greedy,
    switched_off,
)
from gp.pruners import METHODS
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.ragged import rows_alone
from tests.support.tiny_models import FAMILIES, Family

pytestmark = pytest.mark.core

PROMPTS = [([(4, 6)], 9), ([(6, 6)], 14)]
KEEP_ALL = PruneOptions(threshold=0.0)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def prompts(family):
    return family.fit(PROMPTS)


@pytest.fixture(scope="module")
def base(family):
    return family.make()


@pytest.fixture(scope="module")
def model(base):
    return micro_glimpse(base)


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": False},
        {"do_sample": True, "temperature": 0.7, "top_p": 0.9},
        {"num_beams": 3, "do_sample": False},
        {"num_beams": 4, "num_return_sequences": 2, "do_sample": False},
        {"num_return_sequences": 3, "do_sample": True},
        {"num_beams": 2, "do_sample": True},
        {"do_sample": False, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"do_sample": False, "cache_implementation": "static"},
        {"do_sample": False, "max_new_tokens": 1},
    ],
    ids=str,
)
def test_every_mode_equals_stock_when_all_is_kept(family, prompts, base, model, how):
    how = {"max_new_tokens": 6, **how}
    inputs = family.inputs(prompts)
    torch.manual_seed(5)
    expected = base.generate(**inputs, **how)
    torch.manual_seed(5)
    assert torch.equal(model.generate(**inputs, options=KEEP_ALL, **how), expected)


@pytest.mark.parametrize("how", [{"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}], ids=str)
def test_pruned_modes_share_one_prefill(family, prompts, model, how, monkeypatch):
    calls = []
    layer = type(model.backbone).layer
    monkeypatch.setattr(type(model.backbone), "layer", lambda self, *a: calls.append(a[1].shape[0]) or layer(self, *a))
    out = model.generate(**family.inputs(prompts), max_new_tokens=4, **how)
    assert set(calls) == {2} and len(calls) == model.backbone.num_layers
    assert out.shape[0] == (2 if "num_beams" in how else 4)


def test_output_is_the_full_prompt_then_the_answer(family, prompts, model):
    inputs = family.inputs(prompts)
    out = model.generate(
        **inputs,
        fixed_keep_ratio=0.25,
        max_new_tokens=5,
        return_dict_in_generate=True,
        output_scores=True,
        output_hidden_states=True,
    )
    assert torch.equal(out.sequences[:, :-5], inputs["input_ids"])
    assert len(out.scores) == 5 and out.scores[0].shape == (2, 64)
    grids = [grids[0] for grids, _ in prompts]
    assert out.num_visual == tuple(h * w for h, w in grids)
    assert out.num_kept == tuple(int(0.25 * h * w) for h, w in grids)
    assert [m.shape for m in out.keep_masks] == grids
    # the cache holds pruned prompts and the new tokens but the last
    num_text = inputs["attention_mask"].sum(1) - torch.tensor(out.num_visual)
    assert out[CACHE].get_seq_length() == int((num_text + torch.tensor(out.num_kept)).max()) + 4


class Collect(BaseStreamer):
    def __init__(self):
        self.tokens = []

    def put(self, value):
        self.tokens.append(value)

    def end(self):
        self.tokens.append("end")


class Stop(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((input_ids.shape[0],), input_ids.shape[1] >= self.length)


class Only(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return torch.full_like(scores, float("-inf")).index_fill(1, torch.tensor([7]), 0.0)


def test_streamers_criteria_and_processors(family, prompts, model):
    single = family.inputs(prompts[:1])
    streamer, stop = Collect(), Stop()
    stop.length = single["input_ids"].shape[1] + 3
    out = model.generate(
        **single, max_new_tokens=9, streamer=streamer, stopping_criteria=[stop], logits_processor=[Only()]
    )
    assert out[0, -3:].tolist() == [7, 7, 7] and out.shape[1] == stop.length
    assert streamer.tokens[-1] == "end" and [int(t) for t in streamer.tokens[1:-1]] == [7, 7, 7]


def test_threads_with_different_options_do_not_meet(family, prompts, model):
    inputs = family.inputs(prompts)
    ratios = [0.1, 0.3, 0.6, 1.0] * 4

    def ask(ratio):
        return model.generate(**inputs, fixed_keep_ratio=ratio, max_new_tokens=4, return_dict_in_generate=True)

    expected = [ask(r) for r in ratios]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(ask, ratios))
    for result, one, ratio in zip(results, expected, ratios):
        assert result.num_kept == tuple(int(ratio * total) for total in result.num_visual)
        assert torch.equal(result.sequences, one.sequences)


def test_a_prefill_can_be_decoded_twice(family, prompts, model):
    inputs = family.inputs(prompts)
    done = model.prefill(inputs)
    first, second = (model.decode(inputs["input_ids"], done, max_new_tokens=4, do_sample=False) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "how",
    [{}, {"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}, {"cache_implementation": "static"}],
    ids=str,
)
def test_a_consumed_prefill_gives_its_cache_away(family, prompts, model, how):
    """Same answer; behind the first step nothing of the prefill's own cache is left, and it cannot be decoded again."""
    inputs, how = family.inputs(prompts), {"max_new_tokens": 4, "do_sample": False, **how}
    done = model.prefill(inputs)
    torch.manual_seed(7)
    expected = model.decode(inputs["input_ids"], done, **how)
    first_keys = [weakref.ref(layer.keys) for layer in done.cache.layers]
    torch.manual_seed(7)
    alive = []

    class Watch(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            alive.append(sum(ref() is not None for ref in first_keys))
            return torch.zeros(len(input_ids), dtype=torch.bool)

    out = model.decode(inputs["input_ids"], done, consume=True, stopping_criteria=[Watch()], **how)
    assert torch.equal(out, expected)
    assert alive[-1] == 0
    with pytest.raises(ValueError, match="consume=True"):
        model.decode(inputs["input_ids"], done, **how)


def test_generate_never_holds_a_cache_twice(family, prompts, model, monkeypatch):
    handed = []
    start = Handover.start
    monkeypatch.setattr(Handover, "start", lambda self, *given: handed.append(self) or start(self, *given))
    model.generate(**family.inputs(prompts), max_new_tokens=3)
    assert handed[0].consume and not handed[0].prefill.cache.layers


def test_a_growing_mask_is_the_mask_and_ones():
    mask = torch.tensor([[False, True], [True, True]])
    growing = GrowingMask(mask)
    for num_new in (1, 2, SPARE_TOKENS, SPARE_TOKENS + 3):
        expected = torch.cat([mask, torch.ones(2, num_new, dtype=torch.bool)], dim=1)
        assert torch.equal(growing.longer(num_new), expected)


def test_a_mask_to_add_is_built_once_and_starts_where_the_kernel_wants_it():
    mask = torch.tensor([[False, True, True], [True, True, True]])
    growing = GrowingMask(mask, torch.float32)
    first = growing.longer(1)
    for num_new in (1, 2, SPARE_TOKENS):
        longer = growing.longer(num_new)
        assert longer.data_ptr() == first.data_ptr() and longer.stride(0) % ALIGNED == 0
        assert torch.equal(longer == 0, torch.cat([mask, torch.ones(2, num_new, dtype=torch.bool)], dim=1))
        assert set(longer.unique().tolist()) == {-torch.inf, 0.0}


@pytest.mark.parametrize(("attention", "dtype"), [("sdpa", torch.float32), ("eager", torch.bool)])
def test_padded_rows_decode_under_the_mask_that_the_kernel_takes(attention, dtype, monkeypatch):
    family, seen = FAMILIES["qwen2_5_vl"], []
    model = micro_glimpse(family.make(attn_implementation=attention))
    decode = type(model.backbone).decode
    monkeypatch.setattr(
        type(model.backbone), "decode", lambda self, *a, **k: seen.append(a[2]) or decode(self, *a, **k)
    )
    model.generate(**family.inputs(PROMPTS), num_keep=(3, 11), max_new_tokens=3, do_sample=False)
    assert [mask.dtype for mask in seen] == [dtype] * 2


def test_answers_longer_than_the_masks_room(family, model, prompts):
    """Padded rows, far beyond the room that a mask is built with: as each row alone."""
    inputs, how = family.inputs(prompts), {"max_new_tokens": SPARE_TOKENS + 9, "do_sample": False}
    together = model.generate(**inputs, num_keep=(3, 11), **how)
    for row, single in enumerate(rows_alone(inputs, prompts)):
        alone = model.generate(**single, num_keep=((3, 11)[row],), **how)
        assert torch.equal(alone[0, -how["max_new_tokens"] :], together[row, -how["max_new_tokens"] :])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"use_cache": False}, "use_cache=False"),
        ({"prompt_lookup_num_tokens": 3}, "speculative"),
        ({"prefill_chunk_size": 4}, "prefilled and pruned as a whole"),
        ({"cache": ()}, "prefilled and pruned as a whole"),
        ({"past_key_values": ()}, "prefilled and pruned as a whole"),
        ({"pixel_values_videos": torch.zeros(1)}, "videos"),
        ({"max_keep_ratio": 0.0}, r"\(0, 1\]"),
        ({"keep_ratio": 0.5}, "keep_ratio"),
    ],
)
def test_what_cannot_work_says_so(family, prompts, model, how, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**family.inputs(prompts), max_new_tokens=2, **how)


def test_ask_needs_a_processor(model):
    with pytest.raises(ValueError, match="needs a processor"):
        model.ask([], "what ?")


SWAYED = {
    "repetition_penalty": 50.0,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 6,
    "suppress_tokens": [*range(1, 40)],
    "begin_suppress_tokens": [*range(1, 40)],
    "bad_words_ids": [[token] for token in range(1, 40)],
    "sequence_bias": {(5,): 100.0},
    "forced_eos_token_id": 50,
    "exponential_decay_length_penalty": (1, 9.0),
    "guidance_scale": 3.0,
    "encoder_repetition_penalty": 9.0,
    "temperature": 9.0,
    "do_sample": True,
    "num_beams": 3,
    "num_return_sequences": 3,
}


def test_greedy_takes_the_most_likely_token_whatever_the_base_says(family, prompts):
    model, inputs = micro_glimpse(family.make()), family.inputs(prompts)
    how = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True, "pad_token_id": 0}
    plain = model.decode(inputs["input_ids"], model.prefill(inputs), **how, **GREEDY)
    assert not notice_of_greedy(model.generation_config)
    for name, value in SWAYED.items():
        setattr(model.generation_config, name, value)
    out = model.decode(inputs["input_ids"], model.prefill(inputs), **how, **GREEDY)
    assert torch.equal(out.sequences, plain.sequences)
    assert torch.equal(torch.stack(out.logits, 1).argmax(-1), out.sequences[:, -6:])
    assert switched_off(model.generation_config).keys() == SWAYED.keys() & SWAYING.keys()
    said = notice_of_greedy(model.generation_config)
    assert len(said) == 1 and "repetition_penalty=50.0" in said[0] and "temperature" not in said[0]


def test_scores_that_are_not_finite_are_no_kept_tokens(family, prompts, model, monkeypatch):
    """The error names method and layer: at once by a threshold, at the second token with an exact budget."""
    inputs = family.inputs(prompts)

    def wrong(self, view):
        return scores(self, view).index_fill(0, torch.tensor([3]), float("nan"))

    scores = type(model.glimpse).scores
    monkeypatch.setattr(type(model.glimpse), "scores", wrong)
    message = r"pruner 'glimpse': scores of visual tokens after layer 1 are not finite.*float32 may be too narrow"
    with pytest.raises(ValueError, match=message):
        model.prefill(inputs)
    done = model.prefill(inputs, options=PruneOptions(num_keep=2))  # the host does not wait for this one
    for look in (done.insist, lambda: done.num_kept, lambda: model.decode(inputs["input_ids"], done, max_new_tokens=1)):
        with pytest.raises(ValueError, match=message):
            look()
    streamer = Collect()
    single = family.inputs(prompts[:1])
    with pytest.raises(ValueError, match=message):
        model.generate(**single, num_keep=2, max_new_tokens=9, do_sample=False, streamer=streamer)
    assert len(streamer.tokens) <= 2  # the prompt, and one token
    with pytest.raises(ValueError, match=message):
        model(**inputs, num_keep=2)


@pytest.mark.parametrize("name", [*METHODS])
def test_numbers_that_went_wrong_on_the_way_to_scores_are_an_error(family, prompts, name):
    """Attention, visual embeddings or their features: whatever a method looks at."""
    if name in ("none", "random", "oracle", "downsample"):
        return  # look at nothing
    model, inputs = micro_glimpse(family.make(layers=8), 3), family.inputs(prompts)
    inputs["pixel_values"] = inputs["pixel_values"].clone()
    inputs["pixel_values"].view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match=f"pruner '{name}': scores of visual tokens .* are not finite"):
        model.generate(**inputs, pruner=name, num_keep=20, max_new_tokens=2)


def test_evidence_may_be_certain_but_not_nan(family, prompts, model):
    inputs = family.inputs(prompts)
    masks = [torch.zeros(h, w) for grids, _ in prompts for h, w in grids]
    masks[0][0, 0] = 1.0
    assert model.prefill(inputs, "oracle", evidence_masks=masks).num_kept == [1, 1]
    masks[0][0, 1] = float("nan")
    with pytest.raises(ValueError, match="pruner 'oracle'"):
        model.prefill(inputs, "oracle", evidence_masks=masks)
