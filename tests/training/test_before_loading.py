"""What the base's config and the disk tell is told before any weights are read, by both commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

import evaluate
import train
from tests.support.bases import BASES
from tests.support.micro_run import write_config

STEP = ("optim.max_steps=1", "trainer.val_samples=1", "eval.after_training=false")


@pytest.fixture(scope="module", params=BASES)
def family(request, tmp_path_factory) -> Path:
    """A folder with shards and `micro.yaml`, for a base of a family."""
    folder = tmp_path_factory.mktemp(request.param)
    write_config(folder, BASES[request.param](folder / "base"))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a run of one step, on a Qwen2.5-VL."""
    folder = tmp_path_factory.mktemp("trained")
    write_config(folder, BASES["qwen2_5_vl"](folder / "base"))
    assert call(folder, *STEP) == 0
    return folder


@pytest.fixture
def no_weights(monkeypatch):
    """Reading weights is an error of the program."""

    def from_pretrained(*arguments, **options):
        raise AssertionError("weights were read")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", from_pretrained)


def call(folder: Path, *overrides: str) -> int:
    return train.main(["--config", str(folder / "micro.yaml"), *overrides])


def error(capsys) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("glimpse.prune_layer=17", "glimpse.prune_layer [17]"),
        ("vip.taps=[31,1]", "vip.taps [31]"),
        ("glimpse.layers=[0,9]", "glimpse.layers [9]"),
    ],
)
def test_layers_that_a_base_lacks(family, no_weights, capsys, override, key):
    assert call(family, override) == 2
    assert f"{key} outside 0.." in error(capsys)


def test_a_prune_layer_beyond_the_base_behind_read_layers_that_it_has(family, no_weights, capsys):
    assert call(family, "glimpse.prune_layer=17", "glimpse.read_layers=[1]") == 2
    assert "glimpse.prune_layer [17] outside 0.." in error(capsys)


@pytest.mark.parametrize("key", ["data.train", "data.val", "data.test.test"])
def test_missing_shards_of_training(family, no_weights, capsys, key):
    assert call(family, f"{key}=[nowhere.tar]") == 2
    assert error(capsys).startswith(f"error: {key}: shard {family}/nowhere.tar: no such file")


def test_shards_of_an_evaluation_that_will_not_be_are_not_looked_for(trained):
    assert call(trained, *STEP, "data.test.test=[nowhere.tar]", "name=other") == 0


@pytest.mark.parametrize("place", ["last.ckpt", "glimpse"])
@pytest.mark.parametrize(
    ("override", "words"),
    [("data.test.test=[nowhere.tar]", "data.test.test: shard "), ("eval.splits=[test]", "trained on another base")],
)
def test_evaluation_of_what_does_not_fit(trained, tmp_path, no_weights, capsys, place, override, words):
    other = BASES["qwen3_vl"](tmp_path / "base") if "another" in words else str(trained / "base")
    assert evaluate.main([f"ckpt={trained}/runs/micro/{place}", f"model.base={other}", override]) == 2
    assert words in error(capsys)


@pytest.mark.parametrize("place", ["last.ckpt", "glimpse"])
def test_a_base_of_the_same_sizes_is_another_base(trained, tmp_path, capsys, place):
    other = BASES["qwen2_5_vl"](tmp_path / "base", seed=1)
    assert evaluate.main([f"ckpt={trained}/runs/micro/{place}", f"model.base={other}"]) == 2
    line = error(capsys)
    assert f"trained on another base of the same sizes, {trained}/base: expected weights with" in line
    if place == "last.ckpt":
        assert call(trained, *STEP, "ckpt=last", f"model.base={other}", "optim.max_steps=2") == 2
        assert "trained on another base of the same sizes" in error(capsys)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_folder_that_was_moved_is_the_same_base_in_any_dtype(trained, tmp_path, dtype):
    (tmp_path / "moved").symlink_to(trained / "base")
    base, out = (f"model.base={tmp_path}/moved", f"model.dtype={dtype}"), f"eval.out={tmp_path}/eval"
    ckpt = f"ckpt={trained}/runs/micro/last.ckpt"
    assert evaluate.main([ckpt, *base, out, "num_samples=1", "eval.costs=false"]) == 0


def test_a_checkpoint_names_its_base(trained):
    base = torch.load(trained / "runs/micro/last.ckpt", weights_only=True)["gp"]["base"]
    assert base["name"] == f"{trained}/base"
    assert base["fingerprint"].keys() == {"float32", "bfloat16", "float16"}


def test_an_evaluation_without_a_row_that_the_base_can_run(trained, no_weights, capsys):
    row = ("eval.pruners=[fastv]", "eval.budgets=[0.001]", "eval.methods.fastv.layer=2")
    ckpt = f"ckpt={trained}/runs/micro/last.ckpt"
    for command in (lambda: call(trained, "name=other", *row), lambda: evaluate.main([ckpt, *row])):
        assert command() == 2
        assert "none of the rows can be run on this base (fastv-0.001: " in error(capsys)
