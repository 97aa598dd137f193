"""Saving and uploading trained parts."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import gp
from gp.formats import publish
from gp.formats.glimpse_folder import load_glimpse
from gp.model import GlimpseModel
from tests.support.glimpses import micro_glimpse
from tests.support.hub_client import Hub
from tests.support.tiny_models import tiny_qwen


@pytest.fixture(scope="module")
def model():
    model = micro_glimpse(tiny_qwen())
    model.base.config.name_or_path = "owner/base"
    return model


def test_saved_folder_loads_and_its_card_says_how(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "parts", data="GQA", metrics={"mask_iou": 0.9371})
    pruner, options = load_glimpse(folder, model.backbone)
    assert options == model.options and pruner.prune_layer == model.glimpse.prune_layer
    card = (folder / "README.md").read_text()
    for wanted in ("base_model: owner/base", 'glimpse="parts"', "GQA", "| mask_iou | 0.9371 |", "threshold"):
        assert wanted in card


def test_a_model_without_parts_has_nothing_to_save(model, tmp_path):
    with pytest.raises(ValueError, match="no trained parts to save"):
        GlimpseModel(model.base).save_pretrained(tmp_path)


def test_upload_sends_exactly_the_saved_files(model, monkeypatch):
    hub = Hub()
    monkeypatch.setattr(publish, "HfApi", lambda: hub)
    assert model.push_to_hub("me/parts", private=True, data="GQA").endswith("me/parts")
    assert hub.repo == ("me/parts", True)
    assert sorted(hub.files) == ["README.md", "config.json", "glimpse.safetensors"]
    assert b'glimpse="me/parts"' in hub.files["README.md"]


def test_metadata_and_list_of_data(model, tmp_path):
    """What stands in the card's head is YAML that the Hub reads."""
    folder = model.save_pretrained(tmp_path / "parts", data=["gqa-*.tar", "docvqa-*.tar"], step=12)
    card = ModelCard.load(folder / "README.md")
    assert card.data.base_model == "owner/base" and card.data.pipeline_tag == "image-text-to-text"
    assert set(card.data.tags) == set(publish.TAGS)
    assert "- `gqa-*.tar`" in card.text
    config = json.loads((folder / "config.json").read_text())
    assert config["data"] == ["gqa-*.tar", "docvqa-*.tar"] and config["step"] == 12


def test_the_sample_of_the_card_runs(tmp_path, monkeypatch, capsys):
    """With the embedded model, in a folder with a picture."""
    model = gp.from_pretrained("tiny", glimpse="tiny")
    folder = model.save_pretrained(tmp_path / "parts", name=str(tmp_path / "parts"))
    shutil.copy(Path(__file__).parents[2] / "docs/images/scene.png", tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    sample = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    exec(compile(sample, "README.md", "exec"), {})
    assert capsys.readouterr().out == "0 6\n4 of 256 visual tokens kept\n"


def test_results_say_what_they_were_measured_on(model, tmp_path):
    told = {"measured_on": ["b.tar", "c.tar"], "training": {"seed": 3}, "base_revision": "abc"}
    folder = model.save_pretrained(tmp_path / "parts", metrics={"mask_iou": 0.9371, "empty": float("nan")}, **told)
    card = ModelCard.load(folder / "README.md")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("mask_iou", 0.9371, "b.tar, c.tar")
    assert 'gp.from_pretrained("owner/base", revision="abc", glimpse="parts")' in card.text
    assert "Measured on: b.tar, c.tar" in card.text and '"seed": 3' in card.text and "empty" not in card.text
    config = json.loads((folder / "config.json").read_text())
    assert {key: config[key] for key in told} == told and config["metrics"] == {"mask_iou": 0.9371}


@pytest.mark.parametrize("base", ["tiny", "/models/base", "docs/images"])
def test_a_base_that_is_no_hub_id_stands_in_the_text_only(model, tmp_path, monkeypatch, base):
    monkeypatch.setattr(model.base.config, "name_or_path", base)
    card = ModelCard.load(model.save_pretrained(tmp_path / "parts") / "README.md")
    assert card.data.base_model is None and card.data.eval_results is None
    assert f"`{base}`" in card.text and card.text.count("Not stated.") == 3


def test_a_folder_with_quotes_is_still_python(model, tmp_path):
    folder = model.save_pretrained(tmp_path / 'a "b"')
    sample = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert 'a "b"' in {node.value for node in ast.walk(ast.parse(sample)) if isinstance(node, ast.Constant)}
