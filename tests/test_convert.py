"""Published format <-> ours, through the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import gp
from gp.convert import main
from gp.formats.glimpse_folder import load_glimpse, save_glimpse
from gp.formats.published import read_weights
from tests.parity import Case, load_qwen
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
    assert "--base" in capsys.readouterr().err
    assert len(load_file(ours / "glimpse.safetensors")) > 40
