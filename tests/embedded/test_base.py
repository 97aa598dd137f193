"""The embedded base as it ships: a complete stock folder that answers, found by its name."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer

import gp
from gp.backbones.processor import load_processor
from gp.embedded import BASE_DIR, MATERIAL_DIR
from gp.embedded.cards.samples import draw_sample
from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.evaluate import Answerer, exact_matches, main

MAX_BYTES = 9 * 2**20


@pytest.fixture(scope="module")
def answerer():
    return Answerer(BASE_DIR)


def test_it_is_small_and_complete():
    assert sum(path.stat().st_size for path in BASE_DIR.iterdir()) <= MAX_BYTES
    names = {path.name for path in BASE_DIR.iterdir()}
    assert {"preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"} <= names
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"} <= names
    config = json.loads((BASE_DIR / "config.json").read_text())
    assert config["text_config"]["num_hidden_layers"] == 8


def test_stock_transformers_loads_it():
    model = AutoModelForImageTextToText.from_pretrained(BASE_DIR)
    assert model.dtype == torch.float32
    assert model.config.text_config.vocab_size == len(load_processor(BASE_DIR).tokenizer)


@pytest.mark.parametrize(
    ("kind", "size", "least"), [("color", (8, 12), 10), ("zoom", (12, 16), 10), ("turns", (8, 8), 10)]
)
def test_it_answers_on_material_it_never_saw(answerer, kind, size, least):
    groups = exact_matches(answerer, SceneBuilder("test"), kind, size, 12)
    assert sum(sum(right) for right in groups.values()) >= least


def test_gp_finds_it_by_its_name_and_answers_alike(answerer):
    model = gp.from_pretrained("tiny")
    sample = draw_sample(SceneBuilder("test"), "color", 8, 12, 0)
    answer = model.ask(sample.images[0], sample.question.text, pruner="none")
    assert [answer.text] == answerer.answer([sample])


def test_the_command_prints_each_kind_and_size(capsys):
    assert main(["--kind", "color", "glance", "--size", "8x8", "8x10", "--num-questions", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines} == {"8x8", "8x10"}
    assert sum(int(line.rpartition("n = ")[2]) for line in lines) == 32


def test_the_command_refuses_what_is_not_there(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--kind", "smell"])
    assert stopped.value.code == 2 and "smell" in capsys.readouterr().err
    assert main(["--kind", "zoom", "--size", "9x8"]) == 2
    assert "even" in capsys.readouterr().err


def test_the_image_is_what_answers(answerer):
    """Shown another scene, the model must not get the answer right beyond chance."""
    samples = [draw_sample(SceneBuilder("test"), "color", 8, 8, seed) for seed in range(25)]
    others = [replace(one, images=two.images) for one, two in itertools.pairwise(samples)]
    right = [answer == one.question.answer for answer, one in zip(answerer.answer(others), samples, strict=False)]
    assert sum(right) <= 3


def test_the_processor_keeps_the_image_size_and_reads_free_text():
    processor = load_processor(BASE_DIR)
    assert processor.tokenizer.padding_side == "left"
    image = draw_sample(SceneBuilder("test"), "color", 16, 16, 0).images[0]
    assert processor.image_processor(image, return_tensors="pt")["image_grid_thw"].tolist() == [[1, 32, 32]]
    tokens = processor.tokenizer.tokenize("What number is on the RED card? 47")
    assert tokens == ["what", "number", "is", "on", "the", "red", "card", "?", "4", "7"]
    assert processor.tokenizer.decode(processor.tokenizer("4 7").input_ids) == "4 7"
    with pytest.raises(ValueError, match="images and text, got videos"):
        processor(text=["x"], videos=[[image]])


def test_the_stock_tokenizer_class_loads_the_folder():
    tokenizer = AutoTokenizer.from_pretrained(BASE_DIR)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id
    assert tokenizer.pad_token == "<|endoftext|>"


def test_every_material_file_has_its_licence():
    text = (MATERIAL_DIR / "LICENSES.md").read_text(encoding="utf-8")
    for path in [MATERIAL_DIR / "digits.npz", *(MATERIAL_DIR / "photos").iterdir()]:
        assert path.name in text, path.name
