"""A pretraining through the command: its folder is as safe as that of any other run."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

import train
from gp.config.pretrain import PretrainConfig
from gp.config.table import options_of
from gp.embedded.making.module import PretrainModule
from gp.runs.lock import one_writer
from gp.runs.resuming import PRETRAINING, kind_of
from tests.support.commands import PATIENCE_S, begin
from tests.support.micro_making import micro_config


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder with `micro.yaml` and a run of it, `micro`."""
    folder = tmp_path_factory.mktemp("done")
    write(folder)
    assert call(folder, "ckpt=auto") == 0
    return folder


@pytest.fixture
def copied(done, tmp_path) -> Path:
    shutil.copytree(done / "micro", tmp_path / "micro")
    write(tmp_path)
    return tmp_path


def write(folder: Path) -> None:
    settings = asdict(micro_config(folder))
    (folder / "micro.yaml").write_text(yaml.safe_dump(settings))


def call(folder: Path, *overrides: str) -> int:
    return train.main(["--config", str(folder / "micro.yaml"), *overrides])


def weights(folder: Path) -> bytes:
    return (folder / "micro/base/model.safetensors").read_bytes()


def error(capsys) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_a_run_says_that_it_is_finished(done):
    info = json.loads((done / "micro/run.json").read_text())
    assert info["step"] == 6 and "finished" in info and "command" in info


def test_the_same_command_leaves_results_alone(copied, capsys):
    before = weights(copied)
    assert call(copied) == 2
    line = error(capsys)
    assert "holds last.ckpt, base, vision.ckpt of a run: give ckpt=auto" in line and "overwrite=true" in line
    assert weights(copied) == before


def test_a_finished_run_has_nothing_left(copied):
    before = torch.load(copied / "micro/last.ckpt", weights_only=True)["state_dict"]
    assert call(copied, "ckpt=auto") == 0
    after = torch.load(copied / "micro/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_overwriting(copied, capsys):
    before = weights(copied)
    log = copied / "micro/pretrain.log"
    num_lines = len(log.read_text().splitlines())
    assert call(copied, "overwrite=true", "seed=1") == 0
    assert len(log.read_text().splitlines()) == num_lines  # none of the run before
    assert "overwrites last.ckpt, base, vision.ckpt of the run before" in capsys.readouterr().out
    assert weights(copied) != before
    assert yaml.safe_load((copied / "micro/config.yaml").read_text())["overwrite"] is False


def test_a_failed_rehearsal_leaves_what_was_trained(copied, capsys, monkeypatch):
    def broken(*arguments, **options):
        raise ValueError("no validation today")

    before = weights(copied)
    monkeypatch.setattr(PretrainModule, "validation_step", broken)
    assert call(copied, "overwrite=true") == 2
    assert "before training: validation of one batch" in (line := error(capsys)) and "no validation today" in line
    assert weights(copied) == before and (copied / "micro/last.ckpt").is_file()


def test_one_writer(copied):
    with one_writer(copied / "micro"):
        process = begin("train.py", "--config", copied / "micro.yaml", "overwrite=true")
        err = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 2 and f"is being written to by process {os.getpid()}" in err


def test_other_sizes_are_refused(copied, capsys):
    assert call(copied, "ckpt=auto", "model.num_layers=4") == 2
    line = error(capsys)
    assert "missing there" in line and line.endswith("the sizes in the section model must be those of the checkpoint")


@pytest.mark.parametrize("setting", ["weight_decay=0.5", "vision_stage.lr=0.1"])
def test_what_the_optimizer_has_is_refused(copied, capsys, setting):
    assert call(copied, "ckpt=auto", setting) == 2
    key, value = setting.split("=")
    assert f"{key} " in (line := error(capsys)) and f"there, {value} here; a run that goes on cannot change it" in line


def test_a_run_that_goes_on_names_what_it_changes(copied, capsys):
    assert call(copied, "ckpt=auto", "max_grad_norm=2.0", "num_workers=1") == 0
    out = capsys.readouterr().out
    assert "resumes with max_grad_norm 1.0 there, 2.0 here" in out and "num_workers" not in out


def test_every_option_has_a_kind():
    known = [option.key for option in options_of(PretrainConfig)]
    assert len(known) > 30 and all(kind_of(key, PRETRAINING) for key in known)


def test_a_loss_that_is_no_number_stops_it_and_nothing_of_it_is_saved(copied, capsys):
    assert call(copied, "overwrite=true", "vision_stage.lr=1e30") == 2
    line = error(capsys)
    assert "optimizer step 2: the loss is nan" in line and "A lower vision_stage.lr or joint_stage.lr may help" in line
    assert not (copied / "micro/base/model.safetensors").exists()


def test_fewer_steps_than_are_done_are_refused(copied, capsys):
    assert call(copied, "ckpt=last", "joint_stage.steps=1") == 2
    message = error(capsys)
    assert "has done 6 steps" in message and "vision_stage.steps and joint_stage.steps" in message


@pytest.mark.parametrize("stop_after", [2, 4])
def test_a_signal_saves_the_step_at_hand(done, tmp_path, monkeypatch, capsys, stop_after):
    def send_signal(module, *arguments) -> None:
        if module.trainer.global_step == stop_after - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    write(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(PretrainModule, "on_train_batch_end", send_signal)
        assert call(tmp_path, "ckpt=auto", "checkpoint_every_steps=100") == 143
    err = capsys.readouterr().err
    assert f"terminated (SIGTERM) after step {stop_after}; " in err and "go on with ckpt=last" in err
    assert not (tmp_path / "micro/base").exists()
    assert call(tmp_path, "ckpt=auto", "checkpoint_every_steps=100") == 0
    assert weights(tmp_path) == weights(done)
