"""Trained parts on disk: our format, the published one, and everything that must be refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gp.backbones import backbone_of
from gp.config.schema import GlimpseConfig
from gp.formats.glimpse_folder import load_glimpse, save_glimpse
from gp.formats.published import read_weights, write_weights
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.tiny_models import tiny_inputs, tiny_qwen

REFERENCE = Path(__file__).parents[1] / "golden/q03_batch3_left_padding/modules"


@pytest.fixture
def saved(tmp_path):
    model = micro_glimpse(tiny_qwen(), options=PruneOptions(threshold=0.4, anchors=("tl",), num_keep=7))
    return model, save_glimpse(tmp_path / "glimpse", model.glimpse, model.backbone, model.options, {"data": "none"})


def test_round_trip_gives_the_same_model(saved):
    model, folder = saved
    pruner, options = load_glimpse(folder, model.backbone)
    assert options == model.options
    inputs = tiny_inputs([([(4, 6)], 9)])
    again = model.prefill(inputs, pruner).importance_logits
    assert torch.equal(model.prefill(inputs).importance_logits, again)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "glimpse.safetensors"]
    assert not any(k.startswith("base") for k in load_file(folder / "glimpse.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"hidden": 32}, "hidden_size 64 there, 32 here"), ({"layers": 3}, "num_layers 4 there, 3 here")],
)
def test_another_base_is_refused_by_name_of_the_difference(saved, changes, message):
    _, folder = saved
    with pytest.raises(ValueError, match=message):
        load_glimpse(folder, backbone_of(tiny_qwen(**changes)))


def test_published_parts_of_another_base_are_refused():
    with pytest.raises(ValueError, match="another base: vision_hidden_size"):
        load_glimpse(REFERENCE, backbone_of(tiny_qwen(layers=6, vision_hidden=16)))


def test_published_weights_survive_both_directions(tmp_path):
    weights = read_weights(REFERENCE)
    write_weights(weights, tmp_path)
    theirs = torch.load(REFERENCE / "new_modules_gp.pt", weights_only=True)
    ours = torch.load(tmp_path / "new_modules_gp.pt", weights_only=True)
    assert theirs.keys() == ours.keys()
    assert torch.equal(theirs["learnable_embeddings"], ours["learnable_embeddings"])
    for part in ("attn_fuser", "le_proj", "le_norm"):
        assert theirs[part].keys() == ours[part].keys()
        assert all(torch.equal(theirs[part][k], ours[part][k]) for k in theirs[part])


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickle_with_code_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text((REFERENCE / "config.json").read_text())
    (tmp_path / "new_modules_gp.pt").write_bytes(pickle.dumps({"attn_fuser": Evil()}))
    with pytest.raises(ValueError, match="not a file of tensors only"):
        load_glimpse(tmp_path, backbone_of(tiny_qwen()))
    assert "executed" not in capsys.readouterr().out


def test_missing_and_broken_files_are_named(saved, tmp_path):
    model, folder = saved
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_glimpse(tmp_path / "nothing", model.backbone)
    (folder / "glimpse.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"glimpse\.safetensors.* sha256 differs"):
        load_glimpse(folder, model.backbone)
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]  # as earlier versions wrote it
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"glimpse\.safetensors: not a safetensors file"):
        load_glimpse(folder, model.backbone)
    (folder / "glimpse.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"glimpse\.safetensors.*new_modules_gp\.pt"):
        load_glimpse(folder, model.backbone)
    config = json.loads((folder / "config.json").read_text())
    (folder / "glimpse.safetensors").touch()
    (folder / "config.json").write_text(json.dumps({**config, "format": "other"}))
    with pytest.raises(ValueError, match="expected format 'gp-glimpse-1', got 'other'"):
        load_glimpse(folder, model.backbone)


def test_layers_that_the_base_does_not_have_are_refused():
    with pytest.raises(ValueError, match=r"glimpse\.prune_layer \[9\] outside 0\.\.3"):
        micro_glimpse(tiny_qwen(), prune_layer=9)
    with pytest.raises(ValueError, match=r"vip\.taps \[7\] outside 0\.\.3"):
        micro_glimpse(tiny_qwen(), taps=[7, 1])
    assert GlimpseConfig(prune_layer=1).layers is None
