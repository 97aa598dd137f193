"""Every value of a folder of trained parts is held to its kind; every tensor to its name, shape and numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gp.convert import main as convert
from gp.formats.glimpse_folder import load_glimpse, save_glimpse
from tests.parity import Case, load_qwen
from tests.support.glimpses import micro_glimpse
from tests.support.tiny_models import tiny_qwen

CASE = Path(__file__).parents[1] / "golden/q03_batch3_left_padding"
NAN = torch.tensor(float("nan"))


@pytest.fixture
def saved(tmp_path):
    """A folder as earlier versions wrote it, without a checksum."""
    model = micro_glimpse(tiny_qwen())
    folder = save_glimpse(tmp_path / "g", model.glimpse, model.backbone, model.options)
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]
    return model.backbone, folder, config


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("vip", "taps", "3, 1", r"config\.json: vip\.taps must be a list"),
        ("vip", "hidden_size", 0, r"vip\.hidden_size must be a whole number, 1 or more, got 0"),
        ("vip", "hiden_size", 8, r"unknown key 'hiden_size'; the nearest known one is 'hidden_size'"),
        ("glimpse", "prune_layer", None, r"glimpse\.prune_layer must be a whole number"),
        ("glimpse", "layers", {}, r"glimpse\.layers must be null or a list"),
        ("prune", "threshold", float("nan"), r"prune\.threshold must be a number in \[0, 1\)"),
        ("prune", "anchors", "tl", r"prune\.anchors must be a list"),
        ("prune", "num_keep", [3], r"prune\.num_keep: counts belong to one batch"),
        ("prune", "num_keep", -3, r"prune\.num_keep must be a number of tokens"),
        ("prune", "num_keep", 2.5, r"prune\.num_keep: expected a whole number, got 2\.5"),
        ("base", "hidden_size", "64", r"base\.hidden_size: expected a whole number, got '64'"),
        ("base", "num_heads", -4, r"base\.num_heads: expected a size, got -4"),
    ],
)
def test_a_wrong_value_is_named(saved, section, key, value, message):
    backbone, folder, config = saved
    config[section][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_glimpse(folder, backbone)


@pytest.mark.parametrize("section", ["base", "glimpse", "vip", "prune"])
@pytest.mark.parametrize("value", [None, [], 3])
def test_a_section_that_is_none_is_named(saved, section, value):
    backbone, folder, config = saved
    config[section] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"config\.json: {section}: expected an object"):
        load_glimpse(folder, backbone)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '"x"', "[" * 100_000])
def test_a_config_that_is_none(saved, text):
    backbone, folder, _ = saved
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: (not JSON|expected an object)"):
        load_glimpse(folder, backbone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.pop("vip.feature_in.weight"),
            r"vip\.feature_in\.weight: expected a tensor \[16, 4\], got nothing",
        ),
        (lambda w: w.update({"vip.more": torch.ones(1)}), r"vip\.more: the settings beside it have no such tensor"),
        (lambda w: w.update({"vip.feature_in.bias": torch.ones(3)}), r"feature_in\.bias: expected \[16\], got \[3\]"),
        (lambda w: w.update({"vip.feature_in.bias": torch.ones(16, dtype=torch.int64)}), "floating point.*int64"),
        (lambda w: w["vip.feature_in.bias"].fill_(NAN), r"glimpse\.safetensors: vip\.feature_in\.bias: 16 of its num"),
    ],
)
def test_a_wrong_tensor_is_named(saved, change, message):
    backbone, folder, config = saved
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "glimpse.safetensors")
    change(weights)
    save_file(weights, folder / "glimpse.safetensors")
    with pytest.raises(ValueError, match=message):
        load_glimpse(folder, backbone)


def published(tmp_path) -> tuple[Path, dict]:
    folder = Path(shutil.copytree(CASE / "modules", tmp_path / "p"))
    return folder, json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("key", ["le_layers", "selected_layers", "attn_fuse_size", "hidden_size", "num_hidden_layers"])
def test_conversion_names_what_is_missing_and_writes_nothing(tmp_path, capsys, key):
    folder, config = published(tmp_path)
    del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    assert convert([str(folder), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {folder}/config.json: {key}: expected ") and error.endswith("got nothing\n")
    assert not (tmp_path / "out").exists()


def test_conversion_checks_tensors_before_it_writes(tmp_path, capsys):
    folder, _ = published(tmp_path)
    parts = torch.load(folder / "new_modules_gp.pt", weights_only=True)
    next(iter(parts["le_proj"].values())).fill_(NAN)
    torch.save(parts, folder / "new_modules_gp.pt")
    assert convert([str(folder), str(tmp_path / "out")]) == 2
    assert "new_modules_gp.pt: glimpse_token.proj" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_base_saved_by_transformers_5_has_its_sizes_in_a_section(tmp_path):
    """There and back: the published config repeats the base's, in the flat form that the original reads."""
    flat = json.loads((CASE / "base_config.json").read_text())
    moved = ("num_hidden_layers", "hidden_size", "num_attention_heads")
    text = {**flat.get("text_config", {}), **{key: flat[key] for key in moved if key in flat}}
    nested = {**{key: value for key, value in flat.items() if key not in moved}, "text_config": text}
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text(json.dumps(nested))
    for arguments in ([CASE / "modules", "ours"], ["ours", "back", "--base", "base"], ["back", "again"]):
        assert convert([str(tmp_path / part) if part != "--base" else part for part in map(str, arguments)]) == 0
    assert json.loads((tmp_path / "back/config.json").read_text())["num_hidden_layers"] == flat["num_hidden_layers"]
    backbone = load_qwen(Case.read(CASE)).backbone
    (first, options), (last, same) = (load_glimpse(tmp_path / name, backbone) for name in ("ours", "again"))
    assert options == same
    assert all(torch.equal(value, last.state_dict()[name]) for name, value in first.state_dict().items())
