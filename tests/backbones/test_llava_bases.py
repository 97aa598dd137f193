"""LLaVA from disk in both namings: the same numbers, the original's prompts, boxes where the model looks."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import gp
from gp.backbones.cropping import append_images
from gp.backbones.llava_processor import SYSTEM
from gp.backbones.processor import load_processor
from gp.boxes import WHOLE_IMAGE, boxes_in_frame
from gp.data.batch import Collator, end_of_turn_id
from tests.support.llava_bases import PIECES, micro_base, micro_tokenizer, save_base, save_original
from tests.support.samples import LARGE, SMALL
from tests.support.tiny_models import LLAVA_SIDE

pytestmark = pytest.mark.core

IMAGE_ID, EOS = len(PIECES), 2
SIZES = [(70, 40), (40, 70), (41, 40), (20, 20), (133, 47)]
LEVEL = 1 / 255 / 0.26  # of 8-bit pixels, in normalised values


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One base in both namings: (transformers', original)."""
    root = tmp_path_factory.mktemp("llava")
    return save_base(root / "hf"), save_original(root / "original", micro_base())


@pytest.fixture(scope="module")
def models(folders):
    return [gp.from_pretrained(folder) for folder in folders]


@pytest.fixture(scope="module")
def processors(folders):
    """Cropping, padding, and padding because the caller wants it."""
    hf, original = folders
    return {"crop": load_processor(hf), "pad": load_processor(original), "do_pad": load_processor(hf, do_pad=True)}


def messages(image, question="what is here ?"):
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def chat(processor, given, **options):
    return processor.apply_chat_template(given, add_generation_prompt=True, tokenize=True, return_dict=True, **options)


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_both_namings_are_the_same_model(models, folders):
    hf, original = models
    inputs = chat(original.processor, messages(noise(70, 40)), return_tensors="pt")
    assert (inputs["input_ids"] == IMAGE_ID).sum() == LLAVA_SIDE**2
    ours, theirs = (model.prefill(inputs, "none").logits[..., :IMAGE_ID] for model in (original, hf))
    assert torch.equal(ours, theirs)
    stock = hf.base(**inputs).logits[:, -1:, :IMAGE_ID]
    assert torch.allclose(ours, stock, atol=1e-5)
    assert original.base.config.name_or_path == folders[1]
    assert original.base.generation_config.eos_token_id == EOS


def test_dtype_and_attention_of_the_original_naming(folders):
    model = gp.from_pretrained(folders[1], dtype="bfloat16", attn_implementation="eager").base
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.model.language_model.config._attn_implementation == "eager"


def test_prompts(models):
    hf, original = (model.processor.apply_chat_template(messages(None), add_generation_prompt=True) for model in models)
    assert hf == "USER: <image>\nwhat is here ? ASSISTANT:"
    assert original == f"{SYSTEM} {hf}"
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
        *messages(None, "three"),
    ]
    whole = models[1].processor.apply_chat_template(turns, add_generation_prompt=True)
    assert whole == f"{SYSTEM} USER: one ASSISTANT: two</s>USER: <image>\nthree ASSISTANT:"
    assert [end_of_turn_id(model.processor) for model in models] == [EOS, EOS]


def test_tokens_are_those_of_the_original_which_encodes_around_the_image(models):
    """The original encodes the text before and behind the image apart, each with its own leading space."""
    text = models[1].processor.apply_chat_template(messages(None), add_generation_prompt=True)
    head, tail = (micro_tokenizer()(part)["input_ids"] for part in text.split("<image>"))
    ids = chat(models[1].processor, messages(noise(20, 20)))["input_ids"][0]
    assert ids == head + [IMAGE_ID] * LLAVA_SIDE**2 + tail[1:]  # behind the image without a second <s>


def test_two_images_in_one_prompt(models):
    content = [{"type": "image", "image": noise(30, 20)}, {"type": "image", "image": noise(20, 30)}]
    given = [{"role": "user", "content": [*content, {"type": "text", "text": "what ?"}]}]
    for model in models:
        assert "<image>\n<image>\nwhat" in model.processor.apply_chat_template(given)
        answer = model.ask([part["image"] for part in content], "what ?", max_new_tokens=2)
        assert [tuple(mask.shape) for mask in answer.keep_masks] == [(LLAVA_SIDE, LLAVA_SIDE)] * 2


def test_a_crop_stands_where_a_second_image_would(models):
    """The line break behind an image is two tokens of this tokenizer, and a crop is framed by both."""
    one, two = ([*messages(noise(40, 40))], [*messages(noise(40, 40))])
    two[0]["content"].insert(1, {"type": "image", "image": noise(40, 40)})
    for model in models:
        assert model.backbone.image_frame == (0, 2)
        inputs, expected = (chat(model.processor, given, return_tensors="pt") for given in (one, two))
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        longer, _, _ = append_images(ids, mask, IMAGE_ID, model.backbone.image_frame, [[LLAVA_SIDE**2]])
        assert longer.tolist() == expected["input_ids"].tolist()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["crop", "pad", "do_pad"])
def test_the_frame_is_what_the_image_processor_shows(processors, kind, size):
    """Pictures whose red grows from left to right and whose green grows downward say where each processed pixel was."""
    width, height = size
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    ramp = np.stack([*np.broadcast_arrays(255 * x[None], 255 * y[:, None]), np.full((height, width), 255.0)], axis=-1)
    images = processors[kind].image_processor
    seen = images(Image.fromarray(ramp.astype(np.uint8)), do_normalize=False, return_tensors="pt")["pixel_values"][0]
    left, top, right, bottom = processors[kind].frame(width, height)
    centres = (torch.arange(20) + 0.5) / 20
    expected_x, expected_y = left + centres * (right - left), top + centres * (bottom - top)
    inside_x, inside_y = ((e > 0.1) & (e < 0.9) for e in (expected_x, expected_y))  # away from blurred borders
    assert torch.allclose(seen[0][:, inside_x][inside_y], expected_x[inside_x].float(), atol=0.04)
    assert torch.allclose(seen[1][inside_y][:, inside_x], expected_y[inside_y, None].float(), atol=0.04)
    outside = (expected_x < -0.05) | (expected_x > 1.05)
    mean = images.image_mean[2]
    assert torch.allclose(seen[2][:, outside], torch.tensor(mean), atol=0.02)


def test_evidence_is_drawn_where_the_model_sees_it(processors):
    """A box over the right half of an 84 x 56 image, annotated at ten times the size."""
    right = replace(LARGE, boxes_xyxy_px=((420.0, 0.0, 840.0, 560.0),))
    masks = {kind: Collator(processor)([right]).evidence_masks[0].int() for kind, processor in processors.items()}
    # padded to 84 x 84: rows 14..70 of 84 are image, tokens are 16.8 px
    assert masks["pad"].tolist() == [[0, 0, 1, 1, 1]] * 5
    assert torch.equal(masks["pad"], masks["do_pad"])
    low = replace(right, boxes_xyxy_px=((0.0, 0.0, 840.0, 100.0),))  # its uppermost 10 px, at 14..24 of 84
    assert Collator(processors["pad"])([low]).evidence_masks[0].int().tolist() == [[1] * 5] * 2 + [[0] * 5] * 3
    # cropped to the middle 56 x 56, resized from 30 x 20 to 20 x 20: the left 5 of 30 columns are gone
    assert masks["crop"].tolist() == [[0, 0, 1, 1, 1]] * 5
    gone = replace(right, boxes_xyxy_px=((0.0, 0.0, 120.0, 560.0),))
    assert not Collator(processors["crop"])([gone]).evidence_masks[0].any()
    assert Collator(processors["pad"])([gone]).evidence_masks[0][:, 0].all()


def test_frames_travel_with_the_batch(processors):
    batch = Collator(processors["pad"])([SMALL, LARGE])
    assert batch.frames == [(0.0, -0.5, 1.0, 1.5), (0.0, -0.25, 1.0, 1.25)] == batch.to("cpu").frames


def test_the_collator_travels_to_workers(processors):
    for processor in processors.values():
        batch, again = (
            one([SMALL, LARGE]) for one in (Collator(processor), pickle.loads(pickle.dumps(Collator(processor))))
        )
        assert torch.equal(batch.inputs["input_ids"], again.inputs["input_ids"]) and batch.frames == again.frames
        assert batch.inputs["attention_mask"][:, -1].all()


def test_boxes_in_a_frame():
    boxes = [[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.2, 1.0], [0.5, 0.5, 0.5, 0.5]]
    assert boxes_in_frame(boxes, WHOLE_IMAGE).tolist() == boxes
    moved = boxes_in_frame(boxes, (0.2, 0.0, 0.7, 1.0))
    assert torch.allclose(moved, torch.tensor([[0.0, 0.2, 0.2, 0.4], [0.6, 0.5, 0.6, 0.5]], dtype=torch.float64))
    assert boxes_in_frame([], (0.2, 0.0, 0.7, 1.0)).shape == (0, 4)


def test_a_processor_survives_saving(processors, tmp_path):
    for kind, processor in processors.items():
        processor.save_pretrained(tmp_path / kind)
        (tmp_path / kind / "config.json").write_text(json.dumps({"model_type": "llava"}))
        again = load_processor(tmp_path / kind)
        assert again.frame(70, 40) == processor.frame(70, 40) and again.tokenizer.padding_side == "left"
        given = messages(noise(70, 40))
        first, second = (chat(p, given, return_tensors="pt") for p in (processor, again))
        assert torch.equal(first["input_ids"], second["input_ids"])
        # with torchvision installed, what was made of Pillow's class comes back as torchvision's: a level more or less
        assert type(again.image_processor).__name__.startswith(
            type(processor.image_processor).__name__.removesuffix("Pil")
        )
        torch.testing.assert_close(first["pixel_values"], second["pixel_values"], atol=LEVEL, rtol=0)


def test_what_cannot_work_is_refused(folders, processors, tmp_path):
    with pytest.raises(ValueError, match=r"max_pixels=100: .*one size"):
        load_processor(folders[0], max_pixels=100)
    with pytest.raises(ValueError, match="one size"):
        Collator(processors["crop"], min_pixels=100)
    other = save_original(tmp_path / "words", micro_base())
    config = json.loads((tmp_path / "words" / "config.json").read_text())
    (tmp_path / "words" / "config.json").write_text(json.dumps({**config, "vocab_size": 80}))
    with pytest.raises(ValueError, match="tokenizer of 80 tokens"):
        load_processor(other)


def test_a_tokenizer_that_cannot_be_read_says_what_is_missing(tmp_path):
    folder = save_original(tmp_path / "base", micro_base())
    (tmp_path / "base" / "tokenizer.json").unlink()
    (tmp_path / "base" / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="pip install sentencepiece"):
        load_processor(folder)


def test_weights_that_do_not_fit_are_named(tmp_path):
    folder = save_original(tmp_path / "base", micro_base())
    weights = load_file(tmp_path / "base" / "model.safetensors")
    del weights["model.mm_projector.0.bias"]
    save_file(weights, tmp_path / "base" / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing \['model.multi_modal_projector.linear_1.bias'\]"):
        gp.from_pretrained(folder)
    (tmp_path / "base" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"safetensors.*pytorch_model"):
        gp.from_pretrained(folder)


def test_pickled_weights_are_read(tmp_path, models):
    folder = save_original(tmp_path / "base", micro_base())
    weights = load_file(tmp_path / "base" / "model.safetensors")
    names = sorted(weights)
    for part, chosen in enumerate((names[::2], names[1::2])):
        torch.save({name: weights[name] for name in chosen}, tmp_path / "base" / f"pytorch_model-{part}.bin")
    (tmp_path / "base" / "model.safetensors").unlink()
    there, here = gp.from_pretrained(folder).base.state_dict(), models[1].base.state_dict()
    assert there.keys() == here.keys() and all(torch.equal(there[name], here[name]) for name in there)


def test_an_unknown_family_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"model type 'bert'"):
        gp.from_pretrained(tmp_path)
