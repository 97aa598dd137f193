"""Published format <-> ours, through the command."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLConfig

import gp
from gp.convert import main
from gp.formats.glimpse_folder import load_glimpse, save_glimpse, write_weights
from gp.formats.published import read_weights
from tests.parity import Case, load_qwen
from tests.support.bases import BASES
from tests.support.glimpses import micro_glimpse
from tests.support.llava_bases import micro_base, save_base, save_original

CASE = Path(__file__).parent / "golden/q03_batch3_left_padding"


@pytest.fixture
def ours(tmp_path):
    assert main([str(CASE / "modules"), str(tmp_path / "ours")]) == 0
    return tmp_path / "ours"


def test_published_to_ours_loads_on_its_base(ours):
    model = load_qwen(Case.read(CASE))
    pruner, options = load_glimpse(ours, model.backbone)
    assert options == model.options
    expected = model.glimpse.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in pruner.state_dict().items())


def test_a_published_layer_beyond_the_last_means_the_last(tmp_path):
    shutil.copytree(CASE / "modules", tmp_path / "modules")
    path = tmp_path / "modules/config.json"
    published = json.loads(path.read_text())
    path.write_text(json.dumps({**published, "reduce_layer": 1000}))
    pruner, _ = load_glimpse(tmp_path / "modules", load_qwen(Case.read(CASE)).backbone)
    assert pruner.prune_layer == published["num_hidden_layers"] - 1


def test_there_and_back_gives_the_published_files(ours, tmp_path):
    (tmp_path / "base").mkdir()
    shutil.copy(CASE / "base_config.json", tmp_path / "base/config.json")
    assert main([str(ours), str(tmp_path / "back"), "--base", str(tmp_path / "base")]) == 0
    weights, expected = read_weights(tmp_path / "back"), read_weights(CASE / "modules")
    assert weights.keys() == expected.keys() and all(torch.equal(weights[k], expected[k]) for k in weights)
    config = json.loads((tmp_path / "back/config.json").read_text())
    published = json.loads((CASE / "modules/config.json").read_text())
    reads = [k for k in published if k.startswith(("le_", "reduce_", "selected_", "attn_fuse", "use_", "visual_cond"))]
    assert len(reads) > 12
    assert {k: config[k] for k in reads if k != "use_cache"} == {k: published[k] for k in reads if k != "use_cache"}
    assert config["model_type"] == published["model_type"]


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A base in the original naming, a model on it, and its trained parts as a folder of ours."""
    folder = tmp_path_factory.mktemp("llava")
    base = save_original(folder / "base", micro_base())
    model = micro_glimpse(gp.from_pretrained(base).base, attention_logits=False)
    return Path(base), model, save_glimpse(folder / "ours", model.glimpse, model.backbone, model.options)


def test_llava_there_and_back(llava, tmp_path):
    base, model, ours = llava
    assert main([str(ours), str(tmp_path / "published"), "--base", str(base)]) == 0
    config = json.loads((tmp_path / "published/config.json").read_text())
    assert config["model_type"] == "llava_llama_gp" and config["mm_projector_type"] == "mlp2x_gelu"
    assert main([str(tmp_path / "published"), str(tmp_path / "back")]) == 0
    for folder in ("published", "back"):
        pruner, options = load_glimpse(tmp_path / folder, model.backbone)
        assert options == model.options and pruner.log_softmax
        expected = model.glimpse.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in pruner.state_dict().items())


def test_what_the_published_llava_cannot_hold_is_refused(llava, tmp_path, capsys):
    base, model, ours = llava
    other = save_base(tmp_path / "hf")
    assert main([str(ours), str(tmp_path / "out"), "--base", other]) == 2
    assert "original naming" in capsys.readouterr().err
    raw = micro_glimpse(model.base)
    save_glimpse(tmp_path / "raw", raw.glimpse, raw.backbone, raw.options)
    assert main([str(tmp_path / "raw"), str(tmp_path / "out"), "--base", str(base)]) == 2
    assert "log-softmax" in capsys.readouterr().err


def test_ours_to_published_asks_for_the_base(ours, tmp_path, capsys):
    assert main([str(ours), str(tmp_path / "back")]) == 2
    assert "base=FOLDER" in capsys.readouterr().err
    assert len(load_file(ours / "glimpse.safetensors")) > 40


@pytest.fixture
def nested(tmp_path):
    """The base of the golden case, saved by today's transformers: a section for the decoder."""
    flat = json.loads((CASE / "base_config.json").read_text())
    Qwen2_5_VLConfig.from_dict(flat).save_pretrained(tmp_path / "nested")
    assert "hidden_size" not in json.loads((tmp_path / "nested/config.json").read_text())
    return tmp_path / "nested"


def test_a_nested_base_becomes_what_the_original_reads(ours, nested, tmp_path):
    """transformers 4.51 wrote the golden case's config; its words and values come back."""
    assert main([str(ours), str(tmp_path / "back"), "--base", str(nested)]) == 0
    config = json.loads((tmp_path / "back/config.json").read_text())
    old = json.loads((CASE / "base_config.json").read_text())
    apart = {"transformers_version", "model_type", "vision_config", "sliding_window"}  # the window is off there
    assert {key: config.get(key) for key in old if key not in apart} == {k: v for k, v in old.items() if k not in apart}
    vision = {key: config["vision_config"].get(key) for key in old["vision_config"]}
    assert vision == {**old["vision_config"], "model_type": "qwen2_5_vl_vision"}
    assert not {"text_config", "rope_parameters", "dtype"} & config.keys()
    assert main([str(tmp_path / "back"), str(tmp_path / "again")]) == 0
    there, back = (json.loads((folder / "config.json").read_text()) for folder in (ours, tmp_path / "again"))
    assert {**back, "converted_from": None} == {**there, "converted_from": None}


def edit(path: Path, **changes) -> None:
    """Changes fields of a base's config, the decoder's among them."""
    config = json.loads(path.read_text())
    for key, value in changes.items():
        (config if key in config else config["text_config"])[key] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 128}, "trained on another base.*hidden_size 64 there, 128 here"),
        ({"num_hidden_layers": 5}, "num_layers 6 there, 5 here"),
        ({"num_attention_heads": None}, "num_attention_heads: expected a whole number, got None"),
        ({"model_type": "qwen3_vl"}, "model_type qwen2_5_vl there, qwen3_vl here"),
    ],
)
def test_another_base_is_refused_before_anything_is_written(ours, nested, tmp_path, capsys, changes, message):
    edit(nested / "config.json", **changes)
    assert main([str(ours), str(tmp_path / "out"), "--base", str(nested)]) == 2
    assert re.search(message, capsys.readouterr().err) and not (tmp_path / "out").exists()


def test_a_family_that_the_original_does_not_have_is_refused(tmp_path, capsys):
    base = BASES["qwen3_vl"](tmp_path / "base")
    model = micro_glimpse(gp.from_pretrained(base).base)
    folder = save_glimpse(tmp_path / "ours", model.glimpse, model.backbone, model.options)
    assert main([str(folder), str(tmp_path / "out"), "--base", base]) == 2
    assert "knows qwen2_5_vl and llava, got 'qwen3_vl'" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_are_refused_before_anything_is_written(ours, nested, tmp_path, capsys):
    weights = load_file(ours / "glimpse.safetensors")
    weights["glimpse_token.embeddings"].flatten()[0] = float("nan")
    write_weights(ours, weights)
    config = json.loads((ours / "config.json").read_text())
    del config["sha256"]  # as earlier versions wrote it
    (ours / "config.json").write_text(json.dumps(config))
    assert main([str(ours), str(tmp_path / "out"), "--base", str(nested)]) == 2
    assert "glimpse_token.embeddings: 1 of its numbers are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [{"num_keep": 3}, {"fixed_keep_ratio": 0.1}, {"budget_scope": "image"}])
def test_options_that_the_original_does_not_have_are_refused(ours, nested, tmp_path, capsys, option):
    config = json.loads((ours / "config.json").read_text())
    config["prune"] |= option
    (ours / "config.json").write_text(json.dumps(config))
    assert main([str(ours), str(tmp_path / "out"), "--base", str(nested)]) == 2
    assert next(iter(option)) in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_is_not_converted_into_itself(ours, nested, capsys):
    before = {path.name: path.read_bytes() for path in ours.iterdir()}
    assert main([str(ours), str(ours / "../ours"), "--base", str(nested)]) == 2
    assert "would be lost" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == before
