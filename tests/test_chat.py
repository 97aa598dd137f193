"""`model.chat`: every answer is that of a fresh prompt of the whole conversation, over all families."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import gp
from gp.asking import conversation_inputs
from tests.support.bases import BASES

pytestmark = pytest.mark.core


@pytest.fixture(scope="module", params=BASES)
def model(request, tmp_path_factory) -> gp.GlimpseModel:
    return gp.from_pretrained(BASES[request.param](tmp_path_factory.mktemp("base")), dtype="float32")


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (56, 84, 3), dtype=np.uint8))


@pytest.mark.parametrize("how", [{"pruner": "divprune"}, {"pruner": "fastv", "layer": 1}, {"pruner": "none"}])
def test_answers_are_those_of_the_whole_conversation(model, how):
    chat = model.chat([picture(0)], system="be big", budget=0.8, max_new_tokens=4, **how)
    for turn, (question, images) in enumerate([("what is red ?", []), ("what is big ?", [picture(1)]), ("here ?", [])]):
        answer = chat.ask(question, images)
        inputs = conversation_inputs(model.processor, chat.messages[:-1])
        options = {} if how["pruner"] == "none" else {"budget": 0.8}
        fresh = model.generate(
            **inputs, **how, **options, max_new_tokens=4, do_sample=False, return_dict_in_generate=True
        )
        texts = model.processor.tokenizer.batch_decode(
            fresh.sequences[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert answer.text == texts[0].strip(), turn
        assert len(answer.keep_masks) == len(chat.images) == 1 + (turn > 0)
        assert all(torch.equal(*masks) for masks in zip(answer.keep_masks, fresh.keep_masks, strict=True))
        assert chat.messages[-1] == {"role": "assistant", "content": [{"type": "text", "text": answer.text}]}
    assert [message["role"] for message in chat.messages] == ["system", *["user", "assistant"] * 3]


def test_options_of_a_turn_and_mistakes_leave_the_conversation_as_it_was(model):
    chat = model.chat(picture(0), pruner="divprune", num_keep=2, max_new_tokens=3)
    assert chat.ask("what is red ?").num_kept == 2
    before = list(chat.messages)
    with pytest.raises(TypeError, match="question must be text, got int"):
        chat.ask(5)
    with pytest.raises(ValueError, match="unknown option 'num_kep'"):
        chat.ask("what ?", num_kep=3)
    with pytest.raises(ValueError, match="stands for an image"):
        chat.ask(f"what {model.backbone.processor.markers(model.processor)[0]} ?")
    assert chat.messages == before
    assert chat.ask("what is big ?", num_keep=3).num_kept == 3


@pytest.mark.parametrize(
    "default", [{"max_keep_ratio": 0.9}, {"budget": 0.5}, {"options": gp.PruneOptions(num_keep=2)}]
)
def test_another_kind_of_budget_replaces_the_conversations(model, default):
    chat = model.chat(picture(0), pruner="divprune", max_new_tokens=2, **default)
    assert chat.ask("what is red ?", num_keep=3).num_kept == 3
    whole = chat.ask("what is big ?", fixed_keep_ratio=1.0)
    assert whole.num_kept == whole.num_visual
    with pytest.raises(ValueError, match="min_kept must be 0 or more"):
        model.chat(picture(0), min_kept=-1)


def test_without_images_or_processor(model):
    assert model.chat(max_new_tokens=2).ask("what is red ?").num_visual == 0
    with pytest.raises(TypeError, match="system must be text"):
        model.chat(system=3)
    with pytest.raises(ValueError, match="chat needs a processor"):
        gp.GlimpseModel(model.base).chat()


def test_a_conversation_with_zoom_is_generate_on_all_of_it():
    """Each turn takes crops of its own; settings and budgets of a turn hold."""
    model = gp.from_pretrained("tiny", glimpse="tiny")
    chat = model.chat(picture(0), pruner="zoom", margin=0, max_new_tokens=4)
    for question in ("what number is on the red card ?", "what number is on the blue card ?"):
        answer = chat.ask(question)
        inputs = conversation_inputs(model.processor, chat.messages[:-1])
        how = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True}
        fresh = model.generate(**inputs, pruner="zoom", margin=0, **how)
        assert answer.num_kept == fresh.num_kept[0] and len(answer.crops) == len(fresh.crops)
        new = fresh.sequences[0, inputs["input_ids"].shape[1] :]
        assert answer.text == model.processor.decode(new, skip_special_tokens=True).strip()
    assert chat.ask("what is red ?", budget=0.2).num_kept <= 0.2 * answer.num_visual


def test_two_turns_of_the_embedded_model():
    """The second question is answered behind the first answer."""
    model = gp.from_pretrained("tiny")
    chat = model.chat(picture(0))
    first, second = chat.ask("what number is on the red card ?"), chat.ask("what number is on the blue card ?")
    inputs = conversation_inputs(model.processor, chat.messages[:-1])
    fresh = model.generate(**inputs, max_new_tokens=64, do_sample=False, return_dict_in_generate=True)
    assert first.num_visual == second.num_visual and second.num_kept == fresh.num_kept[0]
