"""What would fail in the middle of a run fails before its first step, and names the stage; nothing trained is lost."""

from __future__ import annotations

import json
import multiprocessing
import re
import resource
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from gp.eval import row_costs
from gp.model import GlimpseModel
from gp.stages import StageFailed
from gp.training import rehearsal
from gp.training import train as runs
from gp.training.callbacks import paint
from gp.training.module import GlimpseModule
from gp.training.rehearsal import Rehearsal
from gp.training.validation import Validation
from tests.support.micro_run import save_base, write_config

# saved by itself at no step before the end
STEPS = ("optim.max_steps=5", "trainer.save_every=50", "trainer.val_every=3", "eval.after_training=false")
BROKEN = AttributeError("'DynamicCache' object has no attribute 'key_cache'")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def micro(tmp_path, base) -> Path:
    """A folder with shards and `micro.yaml`; the run's folder is `runs/micro` in it."""
    write_config(tmp_path, base)
    return tmp_path


def call(folder: Path, *overrides: str) -> int:
    return train.main(["--config", str(folder / "micro.yaml"), *STEPS, *overrides])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "runs/micro/last.ckpt", weights_only=True)["state_dict"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def raising(error: Exception, calls_before: int = 0, then=None):
    """A function that raises, after so many calls of another one."""
    calls = 0

    def function(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls > calls_before:
            raise error
        return then(*arguments, **options)

    return function


@pytest.fixture(scope="module")
def without(tmp_path_factory, base):
    """A run without the rehearsal: its folder."""
    folder = tmp_path_factory.mktemp("without")
    write_config(folder, base)
    stock = runs.make_trainer

    def make_trainer(*arguments):
        trainer = stock(*arguments)
        trainer.num_sanity_val_steps = 0
        (rehearsal,) = (callback for callback in trainer.callbacks if isinstance(callback, Rehearsal))
        rehearsal.on_fit_start = rehearsal.on_train_start = lambda *arguments: None
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "make_trainer", make_trainer)
        assert call(folder) == 0
    return folder


def events(folder: Path) -> dict[str, list]:
    """Everything in TensorBoard but times and memory."""
    read = EventAccumulator(str(folder / "runs/micro/tb"), size_guidance={"images": 0, "tensors": 0})
    read.Reload()
    found = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    found |= {tag: [(e.step, e.encoded_image_string) for e in read.Images(tag)] for tag in read.Tags()["images"]}
    return {tag: values for tag, values in found.items() if not tag.startswith("perf/")}


def test_it_changes_nothing(micro, without, capsys):
    assert call(micro) == 0
    out = capsys.readouterr().out
    assert re.search(r"checked +in \d+\.\d s: one batch of validation, one checkpoint\n", out)
    assert out.index("checked") < out.index("train step 1/5") and out.count("val step") == 2
    assert same(weights(micro), weights(without))
    assert events(micro) == events(without) and "val/kept/0" in events(micro)
    assert {path.name for path in (micro / "runs/micro").iterdir()} == {
        path.name for path in (without / "runs/micro").iterdir()
    }


def test_its_workers_are_gone_when_training_starts(micro, monkeypatch):
    started: list[int] = []

    def steps(module, batch, batch_idx):
        started.append(len(multiprocessing.active_children()))
        return stock(module, batch, batch_idx)

    stock = GlimpseModule.training_step
    monkeypatch.setattr(GlimpseModule, "training_step", steps)
    assert call(micro, "data.num_workers=1", "data.eval_batch_size=1", "optim.max_steps=2") == 0
    assert started == [1, 1]  # the training data's


def test_a_broken_library_is_noticed_before_the_first_step(micro, monkeypatch, capsys):
    monkeypatch.setattr(GlimpseModel, "decode", raising(BROKEN))
    with pytest.raises(StageFailed, match=r"before training: validation of one batch .*AttributeError.*key_cache") as e:
        call(micro)
    assert e.value.__cause__ is BROKEN  # Python prints its traceback above
    assert "train step" not in capsys.readouterr().out
    monkeypatch.undo()
    assert call(micro, "data.eval_batch_size=2") == 0  # the folder is free for other settings


def test_broken_painting_is_noticed(micro, monkeypatch, capsys):
    monkeypatch.setattr(paint, "paint_sample", raising(ValueError("no such colour")))
    assert call(micro) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "before training: validation of one batch" in line and "no such colour" in line


def test_a_disk_that_is_too_small_is_noticed(micro, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))  # bytes a file: less than the weights are
    try:
        assert call(micro, "trainer.paint_images=0") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "before training: writing and reading a checkpoint" in line and "File too large" in line
    assert not list((micro / "runs/micro").glob("*.ckpt*"))


def test_a_checkpoint_that_is_read_otherwise_is_noticed(micro, monkeypatch, capsys):
    def read(path: Path) -> dict:
        checkpoint = stock(path)
        next(iter(checkpoint["state_dict"].values())).add_(1)
        return checkpoint

    stock = rehearsal.read_checkpoint
    monkeypatch.setattr(rehearsal, "read_checkpoint", read)
    assert call(micro) == 2
    assert re.search(
        r"reading a checkpoint .*model\.glimpse\.\S+ was read with other values", capsys.readouterr().err, re.S
    )


def test_what_an_earlier_run_trained_outlives_a_failed_rehearsal(micro, monkeypatch):
    assert call(micro) == 0
    trained = weights(micro)
    monkeypatch.setattr(GlimpseModel, "decode", raising(BROKEN))
    with pytest.raises(StageFailed):
        call(micro, "overwrite=true")
    assert same(weights(micro), trained) and (micro / "runs/micro/glimpse").is_dir()
    with pytest.raises(StageFailed, match=r"before training: validation of one batch .*last\.ckpt holds step 5"):
        call(micro, "ckpt=last", "optim.max_steps=6")  # a run that goes on is rehearsed too
    assert same(weights(micro), trained)
    monkeypatch.undo()
    assert call(micro, "ckpt=last", "optim.max_steps=6") == 0
    assert json.loads((micro / "runs/micro/run.json").read_text())["step"] == 6


def test_a_validation_that_fails_later_loses_nothing(micro, without, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Validation, "compute", raising(BROKEN, 1, Validation.compute))  # the rehearsal's passes
        with pytest.raises(StageFailed, match=r"validation after step 3: AttributeError.*last\.ckpt holds step 3") as e:
            call(micro)
    checkpoint = torch.load(micro / "runs/micro/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    (command,) = re.findall(r"python train\.py (--config \S+ ckpt=last)", str(e.value))
    assert train.main(command.split()) == 0
    assert same(weights(micro), weights(without))


def test_the_last_validation_is_made_up_for(micro, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Validation, "compute", raising(ValueError("no figures"), 1, Validation.compute))
        assert call(micro, "trainer.val_every=5") == 2
    info = json.loads((micro / "runs/micro/run.json").read_text())
    assert "figures" not in info and not (micro / "runs/micro/glimpse").exists()
    assert call(micro, "trainer.val_every=5", "ckpt=last") == 0
    assert "val/mask_iou" in json.loads((micro / "runs/micro/run.json").read_text())["figures"]
    assert (micro / "runs/micro/glimpse").is_dir()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("eval.pruners=[fastv] eval.budgets=[0.5] eval.methods.fastv.layer=9", r"fastv"),
        ("data.test.test=[none.tar]", r"data\.test\.test: shard .*none\.tar: no such file"),
    ],
)
def test_a_mistake_in_the_evaluation_is_noticed_before_training(micro, overrides, message, capsys):
    assert call(micro, "eval.after_training=true", *overrides.split()) == 2
    captured = capsys.readouterr()
    assert re.search(rf"error: .*{message}", captured.err) and captured.out == ""


def test_results_that_the_evaluation_would_refuse_are_noticed_before_training(micro, capsys):
    (micro / "other").mkdir()
    (micro / "other/settings.json").write_text("{}")
    assert call(micro, "eval.after_training=true", f"eval.out={micro / 'other'}") == 2
    assert "before training: evaluation" in capsys.readouterr().err


def test_an_evaluation_that_fails_after_training_says_how_to_go_on(micro, monkeypatch):
    monkeypatch.setattr(row_costs, "measure_costs", raising(BROKEN))
    with pytest.raises(
        StageFailed, match=r"evaluation after training .*python evaluate\.py ckpt=\S+last\.ckpt\).*key_cache"
    ):
        call(micro, "eval.after_training=true", "eval.pruners=[glimpse]")
    assert json.loads((micro / "runs/micro/run.json").read_text())["step"] == 5
    assert (micro / "runs/micro/glimpse").is_dir()
