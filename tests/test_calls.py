"""Options of a call: for all prompts or for each, by their words; refused wherever they are set if they cannot work."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

import gp
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.ragged import rows_alone
from tests.support.tiny_models import FAMILIES, Family

pytestmark = pytest.mark.core
GREEDY = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
PROMPTS = [([(4, 6)], 9), ([(2, 3), (6, 4)], 7), ([(6, 6)], 8)]
REFUSALS = {
    "use_cache": False,
    "prefill_chunk_size": 4,
    "prompt_lookup_num_tokens": 3,
    "assistant_early_exit": 1,
    "use_mtp": True,
    "guidance_scale": 1.5,
    "token_healing": True,
    "dola_layers": "low",
    "cache_implementation": "paged",
    "num_beam_groups": 2,
    "penalty_alpha": 0.6,
    "constraints": [1],
    "force_words_ids": [[1]],
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(family) -> gp.GlimpseModel:
    return micro_glimpse(family.make())


@pytest.fixture(scope="module")
def prompts(family):
    return family.fit(PROMPTS)


@pytest.fixture(scope="module")
def inputs(family, prompts):
    return family.inputs(prompts)


def counts(model, inputs, **how) -> tuple[int, ...]:
    return model.generate(**inputs, **{**GREEDY, **how}).num_kept


# ---- options for each prompt --------------------------------------------------------------------------------------


PER_ROW = [
    {"max_keep_ratio": [0.1, 0.5, None]},
    {"threshold": [0.2, 0.9, 0.5]},
    {"threshold": torch.tensor([0.2, 0.9, 0.5]).tolist(), "min_kept": [3, 4, 5]},
    {"fixed_keep_ratio": [0.3, 0.6, 0.9]},
    {"budget": [0.3, 0.6, 0.9]},
    {"num_keep": [[2], None, [5]]},
    {"num_keep": (2, 6, 5), "min_kept": [0, 1, 2]},
    {"anchors": [("tl",), (), ("tl", "br")], "max_keep_ratio": 0.2},
    {"budget_scope": ["prompt", "image", "image"], "budget": 0.5},
    {"options": [PruneOptions(num_keep=3), PruneOptions(threshold=0.8), PruneOptions(max_keep_ratio=0.3)]},
    {"options": [PruneOptions(threshold=0.8)] * 3, "num_keep": [[1], None, [2]]},
]


def of_row(how: dict, row: int) -> dict:
    """The options of one prompt, for the prompt alone."""
    lists = {name: value for name, value in how.items() if isinstance(value, list | tuple)}
    alone = {name: value[row] for name, value in lists.items()}
    if isinstance(alone.get("num_keep"), list):
        alone["num_keep"] = tuple(alone["num_keep"])
    return {**how, **alone}


@pytest.mark.parametrize("how", PER_ROW, ids=str)
def test_a_list_has_a_value_for_each_prompt(model, prompts, inputs, how):
    together = model.generate(**inputs, **how, **GREEDY)
    masks = list(together.keep_masks)
    for row, single in enumerate(rows_alone(inputs, prompts)):
        alone = model.generate(**single, **of_row(how, row), **GREEDY)
        assert alone.num_kept[0] == together.num_kept[row]
        assert all(torch.equal(mask, masks.pop(0)) for mask in alone.keep_masks)
        assert torch.equal(alone.sequences[0, -3:], together.sequences[row, -3:])


@pytest.mark.parametrize("pruner", ["random", "visionzip", "divprune", "cdpruner", "attention_dpp"])
def test_budgets_of_each_prompt_for_other_methods(model, inputs, pruner):
    sizes = model.prefill(inputs).layout.prompt_sizes
    ratios = [0.25, 0.5, 0.75]
    expected = tuple(int(ratio * size) for ratio, size in zip(ratios, sizes))
    assert counts(model, inputs, pruner=pruner, budget=ratios) == expected
    mixed = [
        PruneOptions(num_keep=4),
        PruneOptions(fixed_keep_ratio=0.5, budget_scope="image"),
        PruneOptions(num_keep=7),
    ]
    kept = counts(model, inputs, pruner=pruner, options=mixed)
    assert kept[0] == 4 and kept[2] == 7


def test_methods_that_leave_caches_alone_and_smaller_images_take_them_too(model, inputs):
    generous, mean = [0.9, 0.95, 1.0], []
    for pruner in ("fastv", "pyramid_drop", "vscan"):
        done = model.prefill(inputs, pruner, [PruneOptions(fixed_keep_ratio=ratio) for ratio in generous])
        held = done.layers_cached.split(done.layout.prompt_sizes)
        mean = [float(part.sum()) / model.backbone.num_layers / len(part) for part in held]
        assert all(ratio - 0.1 < share <= ratio + 1e-6 for ratio, share in zip(generous, mean))
    if not model.backbone.one_image_size:
        done = model.prefill(inputs, "downsample", [PruneOptions(num_keep=n) for n in (6, 12, 36)])
        assert all(kept <= most for kept, most in zip(done.num_kept, (6, 12, 36))) and done.num_kept[2] == 36


def test_one_number_for_all_prompts(model, inputs):
    assert counts(model, inputs, num_keep=5) == (5, 5, 5)
    assert counts(model, inputs, num_keep=np.int64(5)) == (5, 5, 5)
    sizes = model.prefill(inputs).layout.prompt_sizes
    assert counts(model, inputs, num_keep=30) == tuple(min(30, size) for size in sizes)
    assert counts(model, inputs, num_keep=2, budget_scope="image") == (2, 4, 2)


def test_numbers_may_come_in_arrays_and_tensors(model, inputs):
    assert counts(model, inputs, num_keep=torch.tensor([2, 4, 6])) == (2, 4, 6)
    assert counts(model, inputs, num_keep=torch.tensor(5)) == (5, 5, 5)
    ratios = [0.2, 0.5, 1.0]
    assert counts(model, inputs, budget=np.array(ratios)) == counts(model, inputs, budget=ratios)
    assert counts(model, inputs, threshold=torch.tensor(0.9)) == counts(
        model, inputs, threshold=torch.tensor(0.9).item()
    )


def test_budget_is_evaluates_word(model, inputs):
    assert counts(model, inputs, budget=0.5) == counts(model, inputs, fixed_keep_ratio=0.5)
    assert counts(model, inputs, budget=None) == counts(model, inputs)


@pytest.mark.parametrize("name", ["random", "visionzip", "divprune", "cdpruner", "attention_dpp", "glimpse"])
def test_equal_ratios_give_equal_counts(name):
    """0.58 of 100 tokens is 57.99999 in float64."""
    family = FAMILIES["qwen2_5_vl"]
    model = micro_glimpse(family.make())
    inputs = family.inputs([([(10, 10)], 6)])
    assert counts(model, inputs, pruner=name, fixed_keep_ratio=0.58) == (58,)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"max_keep_ratio": [0.1, 0.2]}, ValueError, "max_keep_ratio has 2 entries for 3 prompts"),
        ({"options": [PruneOptions()] * 2}, ValueError, "options has 2 entries for 3 prompts"),
        ({"options": {"threshold": 0.5}}, TypeError, "options must be gp.PruneOptions, or a list with one per prompt"),
        ({"options": [PruneOptions(), 0.5, 0.5]}, TypeError, "one per prompt"),
        ({"num_keep": (1, 2)}, ValueError, "num_keep has 2 entries for 3 prompts"),
        ({"num_keep": (1, 2, 999)}, ValueError, "num_keep 999 is outside"),
        ({"num_keep": -1}, ValueError, "got -1"),
        ({"num_keep": 0.5}, ValueError, "num_keep must be a number of tokens"),
        ({"budget": 0.5, "fixed_keep_ratio": 0.5}, ValueError, "two words for one thing"),
        ({"budget": 5}, ValueError, r"fixed_keep_ratio must be in \(0, 1\], got 5"),
        ({"threshold": "high"}, ValueError, "threshold must be in"),
        ({"threshold": [0.5, 1.5, 0.5]}, ValueError, "got 1.5"),
        ({"max_keep_ration": 0.5}, ValueError, "unknown option 'max_keep_ration'; .* is 'max_keep_ratio'"),
        ({"budgets": 0.5}, ValueError, "is 'budget'"),
        ({"inputs": {"input_ids": 1}, "input_ids": None}, ValueError, r"got dict: pass .* as generate\(\*\*inputs\)"),
        ({"pruner": "random", "num_keep": 3, "seed": [1, 2]}, ValueError, "seed has 2 entries for 3 prompts"),
        ({"prunner": "fastv"}, ValueError, "is 'pruner'"),
        ({"pruner": ["fastv", "glimpse"]}, TypeError, "one for the whole batch; got list"),
        ({"pruner": 5}, TypeError, "a method's name or a Pruner"),
        ({"pruner": "fastv", "leyer": 1, "budget": 0.5}, ValueError, "unknown option 'leyer'; .* is 'layer'"),
        ({"attention_mask": [[1]]}, ValueError, "attention_mask must be a tensor, got list: .*return_tensors='pt'"),
        ({"max_new_token": 5}, ValueError, "is 'max_new_tokens'"),
        ({"pixel_value": torch.zeros(1)}, ValueError, "is 'pixel_values'"),
        (
            {"pruner": "fastv", "options": [PruneOptions(num_keep=20), PruneOptions(), PruneOptions()]},
            ValueError,
            "only ranks",
        ),
    ],
    ids=str,
)
def test_mistakes_are_named(model, inputs, how, error, message):
    with pytest.raises(error, match=message):
        model.generate(**{**inputs, **GREEDY, **how})


# ---- what cannot work ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_as_a_keyword_in_a_config_and_in_the_bases_own(model, inputs, name):
    value = REFUSALS[name]
    with pytest.raises(ValueError, match=rf"generate: {name}=\S+ does not work on a pruned prompt: "):
        model.generate(**inputs, max_new_tokens=2, **{name: value})
    config = GenerationConfig(max_new_tokens=2)
    setattr(config, name, value)
    with pytest.raises(ValueError, match=rf"{name}=\S+ in generation_config does not work"):
        model.generate(**inputs, generation_config=config)
    own = model.generation_config
    model.generation_config = copy.deepcopy(own)
    try:
        setattr(model.generation_config, name, value)
        with pytest.raises(ValueError, match=rf"{name}=\S+ in the base's own generation_config does not work"):
            model.generate(**inputs, max_new_tokens=2)
        off = {"use_cache": True}.get(name)
        assert model.generate(**inputs, max_new_tokens=2, **{name: off}).shape[0] == 3  # the call has the last word
    finally:
        model.generation_config = own


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"position_ids": torch.zeros(3, 40, dtype=torch.long)}, "positions follow from input_ids"),
        ({"inputs_embeds": torch.zeros(1)}, "pass input_ids"),
        ({"assistant_model": torch.nn.Linear(1, 1)}, "speculative"),
        ({"negative_prompt_ids": torch.zeros(1)}, "second time"),
        ({"custom_generate": "someone/repository"}, "runs code of a repository"),
        ({"mm_encoder_outputs": {"image": 1}}, "image tensors"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_what_else_cannot_work(model, inputs, how, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**inputs, max_new_tokens=2, **how)


@pytest.mark.parametrize(
    "how",
    [
        {"generation_config": GenerationConfig(max_new_tokens=4, do_sample=False, pad_token_id=0)},
        {"max_new_tokens": 4, "use_cache": True, "assistant_model": None, "guidance_scale": 1.0, "unheard_of": None},
        {"max_new_tokens": 4, "cache_implementation": "static", "synced_gpus": False},
        {"max_new_tokens": 4, "custom_generate": lambda model, input_ids, **kwargs: input_ids + 0},
        {"max_new_tokens": 4, "no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.1, "min_new_tokens": 2},
        {
            "max_time": 60.0,
            "max_length": 90,
            "renormalize_logits": True,
            "prefix_allowed_tokens_fn": lambda i, x: [1, 2],
        },
    ],
    ids=lambda how: "-".join(how),
)
def test_whatever_else_stock_takes_gives_what_stock_gives(model, inputs, how):
    expected = model.base.generate(**inputs, **how)
    assert torch.equal(model.generate(**inputs, pruner="none", **how), expected)
