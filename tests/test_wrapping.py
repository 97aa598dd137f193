"""Pruning put around a loaded model leaves it as it was, and gives it back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, pipeline

import gp
from gp.embedded import BASE_DIR
from gp.pruners import METHODS
from tests.support.glimpses import micro_glimpse
from tests.support.ragged import RAGGED
from tests.support.tiny_models import FAMILIES, Family

pytestmark = pytest.mark.core
GREEDY = {"max_new_tokens": 4, "do_sample": False}
QUESTION = "what number is on the green card ?"


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture
def base(family):
    """A model as its owner has it: trainable, and used before (stock installs hooks of its own at its first call)."""
    model = family.make().requires_grad_(True)
    model.generate(**family.inputs(family.fit(RAGGED)), **GREEDY)
    return model


def configs_of(config: Any) -> dict[str, Any]:
    """All settings, with the attention kernels that `to_dict` leaves out."""
    parts = [config, *(getattr(config, name) for name in config.sub_configs)]
    return {"settings": config.to_dict(), "kernels": [part._attn_implementation for part in parts]}


def state_of(model: torch.nn.Module) -> dict[str, Any]:
    """Everything about a model that somebody could notice."""
    modules = dict(model.named_modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
    return {
        "config": configs_of(model.config),
        "generation": model.generation_config.to_dict(),
        "hooks": {name: [len(getattr(module, kind)) for kind in hooks] for name, module in modules.items()},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "kinds": {name: type(module) for name, module in modules.items()},
        "training": {name: module.training for name, module in modules.items()},
        "trainable": {name: p.requires_grad for name, p in model.named_parameters()},
        "weights": {name: (p.data_ptr(), p.dtype, p.device, p._version) for name, p in model.named_parameters()},
        "buffers": {name: (b.data_ptr(), b._version) for name, b in model.named_buffers()},
    }


def test_the_base_stays_as_it_was(family, base):
    inputs = family.inputs(family.fit(RAGGED))
    before, answers = state_of(base), base.generate(**inputs, **GREEDY)
    pruned = gp.prune(base)
    for name in METHODS.keys() - {"glimpse", "oracle", "zoom"} | {"zoom(fastv)"}:
        pruned.generate(**inputs, pruner=name, fixed_keep_ratio=0.9, **GREEDY)
    micro_glimpse(base).generate(**inputs, **GREEDY)
    assert torch.equal(base.generate(**inputs, **GREEDY), answers)  # beside the wrapper
    back = gp.unwrap(pruned)
    assert back is base and state_of(back) == before
    assert torch.equal(back.generate(**inputs, **GREEDY), answers)


def test_another_model_can_be_made_of_its_config(base):
    gp.prune(base)
    again = AutoModelForImageTextToText.from_config(base.config)
    assert type(again) is type(base)


def test_a_wrapped_model_answers_like_a_loaded_one():
    base = AutoModelForImageTextToText.from_pretrained(BASE_DIR)
    loaded = gp.from_pretrained("tiny", glimpse="tiny")
    wrapped = gp.prune(base, glimpse="tiny", processor=loaded.processor)
    assert wrapped.base is base and wrapped.options == loaded.options
    here, there = (model.ask("docs/images/scene.png", QUESTION) for model in (wrapped, loaded))
    assert here == there and all(torch.equal(*masks) for masks in zip(here.keep_masks, there.keep_masks))
    half = gp.prune(base.to(torch.bfloat16), glimpse="tiny")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    strict = gp.prune(
        base, glimpse="tiny", options=gp.PruneOptions(num_keep=3), pruner_settings={"fastv": {"layer": 2}}
    )
    assert strict.options.num_keep == 3 and strict.find_pruner("fastv").stages == (2,)


def test_a_processor_of_ones_own_is_not_touched():
    """`ask` pads on the left by the call's argument."""
    processor = gp.from_pretrained("tiny").processor
    processor.tokenizer.padding_side = "right"
    model = gp.prune(AutoModelForImageTextToText.from_pretrained(BASE_DIR), "tiny", processor=processor)
    answers = model.ask("docs/images/scene.png", [QUESTION, "number on green card"])
    assert answers[0].text == "5 3" and processor.tokenizer.padding_side == "right"


def test_a_pipeline_gets_a_pruned_copy():
    base, processor = AutoModelForImageTextToText.from_pretrained(BASE_DIR), gp.from_pretrained("tiny").processor
    stock = pipeline("image-text-to-text", model=base, processor=processor)
    pruned = gp.prune(stock, glimpse="tiny")
    content = [{"type": "image", "image": Image.open("docs/images/scene.png")}, {"type": "text", "text": QUESTION}]
    how = {"text": [{"role": "user", "content": content}], "max_new_tokens": 8, "return_full_text": False}
    assert stock(**how)[0]["generated_text"] == pruned(**how)[0]["generated_text"] == " 5 3"
    few = pruned(**how, generate_kwargs={"num_keep": 0, "min_kept": 0})
    assert few[0]["generated_text"] != " 5 3"  # it really prunes
    assert stock.model is base and pruned.model.processor is processor and type(pruned) is type(stock)
    assert gp.unwrap(pruned) is stock


@pytest.mark.parametrize("wrong", ["tiny", None, torch.nn.Linear(2, 2)], ids=lambda x: type(x).__name__)
def test_what_is_no_model_is_refused(wrong):
    with pytest.raises(TypeError, match=f"prune takes a transformers model.*got {type(wrong).__name__}"):
        gp.prune(wrong)
    with pytest.raises(TypeError, match=f"unwrap takes a GlimpseModel.*got {type(wrong).__name__}"):
        gp.unwrap(wrong)


def test_a_model_without_a_head(family):
    with pytest.raises(ValueError, match=r"no language-model head.*AutoModelForImageTextToText"):
        gp.prune(family.make().model)


def test_pruned_twice_or_in_training_mode(base):
    with pytest.raises(TypeError, match="not pruned yet, got GlimpseModel"):
        gp.prune(gp.prune(base))
    with pytest.raises(ValueError, match=r"training mode.*model\.eval"):
        gp.prune(base.train())
    assert base.training
