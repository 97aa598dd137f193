"""Configs: every shipped file loads, and values get the types of the schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from gp.config import load_config
from gp.config.load import prune_options
from tests.support.config_files import MINIMAL

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_config_loads_and_opens_with_its_command(path):
    load_config(path)
    head = path.read_text().split("\n\n")[0]
    assert f"python train.py --config configs/{path.name}" in head
    assert all(line.startswith("#") for line in head.splitlines())
    for word in ("hardware", "time", "result"):
        assert word in head.lower(), f"{path.name} does not state {word}"


def test_overrides_are_typed(minimal):
    config = load_config(minimal, ["optim.lr=1e-3", "glimpse.read_layers=[1,2]", "prune.max_keep_ratio=0.2"])
    assert config.optim.lr == 1e-3 and config.glimpse.read_layers == [1, 2]
    assert prune_options(config).max_keep_ratio == 0.2
    assert config.data.test == {"test": ["tiny:test"]}


def test_epochs_instead_of_steps(minimal):
    optim = load_config(minimal, ["optim.max_steps=null", "optim.epochs=0.5"]).optim
    assert (optim.max_steps, optim.epochs) == (None, 0.5)


def test_a_missing_value_is_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL.replace("glimpse: {prune_layer: 2}", ""))
    with pytest.raises(ValueError, match=r"glimpse\.prune_layer"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml: no such file"):
        load_config(tmp_path / "nothing.yaml")


def test_text_can_stand_for_a_number(minimal, monkeypatch):
    monkeypatch.setenv("STEPS", "7")
    config = load_config(minimal, ["optim.max_steps=${oc.env:STEPS}", "optim.lr=${loss.bce}", "trainer.precision=16"])
    assert (config.optim.max_steps, config.optim.lr, config.trainer.precision) == (7, 0.1, "16")


def test_devices_take_numbers_and_text(minimal):
    given = {"2": 2, "-1": -1, "auto": "auto", '"0,1"': "0,1"}
    for text, expected in given.items():
        assert load_config(minimal, [f"trainer.devices={text}"]).trainer.devices == expected


def test_a_config_of_an_earlier_version_keeps_its_data(minimal):
    """The default of data.root was `shards`; a run's config.yaml states it."""
    assert load_config(minimal).data.root == "data"
    assert load_config(minimal, ["data.root=shards"]).data.root == "shards"


def test_mappings_are_merged_and_lists_replaced(minimal):
    config = load_config(minimal, ["data.test.hard=[x.tar]", "data.train=[y.tar]"])
    assert config.data.test == {"test": ["tiny:test"], "hard": ["x.tar"]} and config.data.train == ["y.tar"]


def test_defaults_are_not_shared(minimal):
    one, other = load_config(minimal), load_config(minimal)
    one.eval.pruners.append("x")
    one.optim.betas.clear()
    assert other.eval.pruners[-1] == "oracle" and load_config(minimal).optim.betas == [0.9, 0.999]
