"""Published format <-> ours, through the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gp.checkpoint import load_glimpse
from gp.convert import main
from gp.reference_format import read_weights
from tests.parity import Case, load_qwen

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


def test_ours_to_published_asks_for_the_base(ours, tmp_path, capsys):
    assert main([str(ours), str(tmp_path / "back")]) == 2
    assert "--base" in capsys.readouterr().err
    assert len(load_file(ours / "glimpse.safetensors")) > 40
