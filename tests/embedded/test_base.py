"""The shipped weights: a stock Qwen2.5-VL folder that answers questions on scans and photographs it never saw."""

import pytest
import torch
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from gp.backbones.processor import load_processor
from gp.embedded import BASE_DIR, MATERIAL_DIR
from gp.embedded.making.evaluate import evaluate_folder
from gp.embedded.scenes import SceneBuilder

MIB = 2**20


@pytest.mark.parametrize(("split", "least"), [("test", 0.95), ("test_hard", 0.95)])
def test_answers_held_out_questions(split, least):
    result = evaluate_folder(BASE_DIR, split, num_questions=96)
    assert result.exact >= least, result


def test_the_image_is_what_answers():
    """Shown another scene, the model must not get the answer right beyond chance."""
    processor = load_processor(BASE_DIR)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(BASE_DIR)
    builder = SceneBuilder("test")
    scenes = [builder.build(seed, "color") for seed in range(33)]
    questions = [scene.questions[0] for scene in scenes[:32]]
    messages = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}]
        for question in questions
    ]
    texts = [processor.apply_chat_template(message, add_generation_prompt=True) for message in messages]
    images = [scene.image for scene in scenes[1:]]
    inputs = processor(images=images, text=texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        output_ids = model.generate(**inputs, max_new_tokens=4)[:, inputs["input_ids"].shape[1] :]
    answers = processor.batch_decode(output_ids, skip_special_tokens=True)
    num_right = sum(answer.strip() == question.answer for answer, question in zip(answers, questions, strict=True))
    assert num_right <= 4


def test_size_and_dtype():
    assert (BASE_DIR / "model.safetensors").stat().st_size <= 16 * MIB
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(BASE_DIR)
    assert type(model) is Qwen2_5_VLForConditionalGeneration
    assert model.dtype == torch.float32
    assert model.config.text_config.num_hidden_layers == 6


def test_processor_keeps_the_image_size_and_reads_free_text():
    processor = load_processor(BASE_DIR)
    assert processor.tokenizer.padding_side == "left"
    image = SceneBuilder("test").build(0, "color").image
    assert processor.image_processor(image, return_tensors="pt")["image_grid_thw"].tolist() == [[1, 16, 16]]
    tokens = processor.tokenizer.tokenize("What number is on the RED card? 47")
    assert tokens == ["what", "number", "is", "on", "the", "red", "card", "?", "4", "7"]
    assert processor.tokenizer.decode(processor.tokenizer("4 7").input_ids) == "4 7"
    with pytest.raises(ValueError, match="images and text, got videos"):
        processor(text=["x"], videos=[[image]])


def test_stock_tokenizer_class_loads_the_folder():
    tokenizer = AutoTokenizer.from_pretrained(BASE_DIR)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id
    assert tokenizer.pad_token == "<|endoftext|>"


def test_every_material_file_has_its_licence():
    text = (MATERIAL_DIR / "LICENSES.md").read_text(encoding="utf-8")
    for path in [MATERIAL_DIR / "digits.npz", *(MATERIAL_DIR / "photos").iterdir()]:
        assert path.name in text, path.name
