"""What the collator makes of samples."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from PIL import Image

from gp.boxes import evidence_mask
from gp.data.batch import Batch, Collator, end_of_turn_id
from gp.data.position import Position, Span
from gp.embedded import BASE_DIR
from tests.support.samples import LARGE, SMALL
from tests.support.small_shards import SPECIAL, small_processor

IM_END, IMAGE_PAD, PAD = (SPECIAL.index(token) for token in ("<|im_end|>", "<|image_pad|>", "<pad>"))


@pytest.fixture(scope="module")
def processor():
    return small_processor()


@pytest.fixture(scope="module")
def batch(processor):
    return Collator(processor)([SMALL, LARGE])


def test_prompts(batch, processor):
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    assert ids.shape == mask.shape == batch.inputs["mm_token_type_ids"].shape
    for row, sample in enumerate((SMALL, LARGE)):
        alone = Collator(processor)([sample]).inputs["input_ids"][0]
        assert torch.equal(ids[row][mask[row].bool()], alone)
        assert (ids[row][~mask[row].bool()] == PAD).all() and mask[row].diff().min() >= 0  # padding on the left
    assert processor.tokenizer.decode(ids[0, -2:]) == processor.tokenizer.decode(ids[1, -2:])  # the assistant header
    assert torch.equal(batch.inputs["mm_token_type_ids"], (ids == IMAGE_PAD).long())


def test_left_padding_whatever_the_tokenizer_says(batch):
    other = Collator(small_processor(padding_side="right"))([SMALL, LARGE])
    assert torch.equal(other.inputs["input_ids"], batch.inputs["input_ids"])


def test_images(batch):
    assert batch.inputs["image_grid_thw"].tolist() == [[1, 2, 4], [1, 4, 6]]
    assert batch.inputs["pixel_values"].shape == (8 + 24, 1176) and batch.inputs["pixel_values"].dtype == torch.float32
    assert (batch.inputs["input_ids"] == IMAGE_PAD).sum(dim=1).tolist() == [2, 6]


def test_answers(batch, processor):
    words = processor.tokenizer.convert_tokens_to_ids(["red", "1", "2", "3"])
    assert batch.answer_ids.tolist() == [[words[0], IM_END, PAD, PAD], [*words[1:], IM_END]]
    assert batch.answer_mask.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.answer_ids.dtype == torch.int64 and batch.answer_mask.dtype == torch.bool


def test_evidence_masks_use_the_annotated_size(batch):
    assert batch.evidence_masks[0].tolist() == [[True, False]]
    expected = evidence_mask([[300 / 840, 0, 839 / 840, 250 / 560]], 2, 3)
    assert torch.equal(batch.evidence_masks[1], expected) and expected.tolist() == [[False, True, True], [False] * 3]


def test_metadata(batch):
    assert len(batch) == 2 and [s.id for s in batch.samples] == ["s0/0000", "s0/0001"] and batch.position is None


def test_pixel_limits_pass_through(processor):
    assert Collator(processor, max_pixels=28 * 28)([LARGE]).inputs["image_grid_thw"].tolist() == [[1, 2, 2]]
    assert Collator(processor, min_pixels=56 * 112)([SMALL]).inputs["image_grid_thw"].tolist() == [[1, 4, 8]]
    assert Collator(processor)([SMALL]).inputs["image_grid_thw"].tolist() == [[1, 2, 4]]


@pytest.mark.parametrize(
    "pixels", [{}, {"max_pixels": 5 * 28 * 28}, {"min_pixels": 40 * 28 * 28, "max_pixels": 50 * 28 * 28}]
)
def test_visual_tokens_are_counted_without_an_image(processor, pixels):
    collator = Collator(processor, **pixels)
    for width, height in ((28, 28), (30, 41), (300, 40), (640, 480), (57, 200)):
        image = Image.new("RGB", (width, height))
        (grid,) = collator.processor.grids(collator([replace(SMALL, image=image, width=width, height=height)]).inputs)
        assert collator.num_visual_tokens(width, height) == grid[0] * grid[1]


def test_moving_to_a_device():
    one, position = torch.ones(1, 1), Position(0, 1, (Span(0, 0, 1),))
    batch = Batch({"x": torch.ones(2)}, one, one, [one], [SMALL], position)
    moved = batch.to("meta")
    tensors = [moved.inputs["x"], moved.answer_ids, moved.answer_mask, *moved.evidence_masks]
    assert all(tensor.device.type == "meta" for tensor in tensors)
    assert moved.samples == batch.samples and moved.position == batch.position
    assert batch.inputs["x"].device.type == "cpu"


def test_end_of_turn(processor):
    assert end_of_turn_id(processor) == IM_END
    silent = small_processor()
    silent.chat_template = "{% for message in messages %}{{ message.content[0].text }}{% endfor %}"
    assert end_of_turn_id(silent) == silent.tokenizer.eos_token_id
    silent.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="ends an assistant's turn"):
        Collator(silent)


def test_collator_travels_to_workers(processor, batch):
    again = pickle.loads(pickle.dumps(Collator(processor)))([SMALL, LARGE])
    assert torch.equal(again.inputs["input_ids"], batch.inputs["input_ids"])


def test_embedded_processor():
    from gp.backbones.processor import load_processor

    processor = load_processor(BASE_DIR)
    image, question = Image.new("RGB", (224, 224)), "what number is on the red card ?"
    sample = replace(SMALL, image=image, width=224, height=224, question=question)
    batch = Collator(processor)([replace(sample, answer="4 7"), replace(sample, answer="0 1")])
    assert batch.inputs["image_grid_thw"].tolist() == [[1, 16, 16]] * 2
    assert batch.evidence_masks[0].shape == (8, 8) and batch.evidence_masks[0].sum() == 1
    assert processor.tokenizer.decode(batch.answer_ids[0]).replace(" ", "") == "47<|im_end|>"
    assert "mm_token_type_ids" in batch.inputs
