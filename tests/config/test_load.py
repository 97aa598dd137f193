"""Configs: every shipped file loads; mistakes are named with the nearest right key."""

from __future__ import annotations

from pathlib import Path

import pytest

from gp.config import load_config
from gp.config.load import prune_options

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = """
name: test
model: {base: tiny}
glimpse: {prune_layer: 2}
vip: {taps: [3, 1]}
data: {train: ["tiny:train"], val: ["tiny:val"], test: {test: ["tiny:test"]}}
optim: {max_steps: 3}
"""


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return path


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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning_rate=1", r"unknown key 'optim\.learning_rate'; the nearest known one is 'optim\."),
        ("optin.lr=1", r"unknown key 'optin'; the nearest known one is 'optim'"),
        ("optim.max_steps=many", r"command line: .*many.*max_steps"),
        ("vip.taps", "expected key=value, got 'vip.taps'"),
        ("glimpse.read_layers=[3]", "read after glimpse.prune_layer 2"),
        ("glimpse.layers=[1,2]", "must contain 0"),
        ("model.dtype=float8", "model.dtype must be one of"),
        ("model.attn_implementation=flash_attention_2", "needs model.dtype bfloat16"),
        ("prune.max_keep_ratio=2", r"max_keep_ratio must be in \(0, 1\]"),
        ("eval.splits=[night]", "night"),
        ("eval.budgets=[0.0]", "eval.budgets"),
        ("data.max_skipped_fraction=3", "max_skipped_fraction"),
        ("task=dance", "task"),
        ("optim.epochs=1", r"optim\.max_steps 3 and optim\.epochs 1 contradict each other"),
        ("optim.max_steps=null", r"no value for optim\.max_steps or optim\.epochs"),
        ("optim.max_steps=0", r"optim\.max_steps must be more than 0"),
        ("data.bucket_batches=0", r"data\.bucket_batches must be at least 1"),
        ("data.worker_start_method=thread", r"worker_start_method must be null or one of fork, spawn"),
        ('data.test={a:["tiny:a"]}', r"value of .*data\.test.* is not YAML"),
    ],
)
def test_mistakes_are_named(minimal, override, message):
    with pytest.raises(ValueError, match=message):
        load_config(minimal, [override])


def test_epochs_instead_of_steps(minimal):
    optim = load_config(minimal, ["optim.max_steps=null", "optim.epochs=0.5"]).optim
    assert (optim.max_steps, optim.epochs) == (None, 0.5)


def test_all_losses_off_is_a_contradiction(minimal):
    with pytest.raises(ValueError, match="nothing would be trained"):
        load_config(minimal, ["loss.dice=0", "loss.bce=0", "loss.answer=0"])


def test_a_missing_value_is_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL.replace("glimpse: {prune_layer: 2}", ""))
    with pytest.raises(ValueError, match=r"no value for glimpse\.prune_layer"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml: no such file"):
        load_config(tmp_path / "nothing.yaml")
