"""The pretraining on cards through the command: its folder is as safe as that of any other run."""

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
from gp.config.pretrain_cards import CardsPretrainConfig
from gp.config.table import options_of
from gp.embedded.making.growing.joint_stage import JointStage
from gp.embedded.making.growing.tower_stage import TowerStage
from gp.runs.lock import one_writer
from gp.runs.resuming import CARDS_PRETRAINING, kind_of
from tests.support.commands import PATIENCE_S, begin
from tests.support.micro_growing import growing_config, save_micro_base


@pytest.fixture(scope="module")
def init(tmp_path_factory) -> Path:
    return save_micro_base(tmp_path_factory.mktemp("init"))


@pytest.fixture(scope="module")
def done(tmp_path_factory, init) -> Path:
    """A folder with `micro.yaml` and a run of it, `micro`."""
    folder = tmp_path_factory.mktemp("done")
    write(folder, init)
    assert call(folder, "ckpt=auto") == 0
    return folder


@pytest.fixture
def copied(done, init, tmp_path) -> Path:
    shutil.copytree(done / "micro", tmp_path / "micro")
    write(tmp_path, init)
    return tmp_path


def write(folder: Path, init: Path) -> None:
    (folder / "micro.yaml").write_text(yaml.safe_dump(asdict(growing_config(folder, init))))


def call(folder: Path, *overrides: str) -> int:
    return train.main(["--config", str(folder / "micro.yaml"), *overrides])


def weights(folder: Path) -> bytes:
    return (folder / "micro/base/model.safetensors").read_bytes()


def error(capsys) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_a_run_says_that_it_is_finished(done):
    info = json.loads((done / "micro/run.json").read_text())
    assert info["step"] == 9 and "finished" in info and "command" in info


def test_the_same_command_leaves_results_alone(copied, capsys):
    before = weights(copied)
    assert call(copied) == 2
    line = error(capsys)
    assert "holds base, tower.ckpt, joint.ckpt, final.ckpt, count.ckpt of a run: give ckpt=auto" in line
    assert "overwrite=true" in line and weights(copied) == before


def test_overwriting(copied, capsys):
    before, log = weights(copied), copied / "micro/count.log"
    num_lines = len(log.read_text().splitlines())
    assert call(copied, "overwrite=true", "seed=1") == 0
    assert len(log.read_text().splitlines()) == num_lines  # none of the run before
    assert (
        "overwrites base, tower.ckpt, joint.ckpt, final.ckpt, count.ckpt of the run before" in capsys.readouterr().out
    )
    assert weights(copied) != before
    assert yaml.safe_load((copied / "micro/config.yaml").read_text())["overwrite"] is False


def test_a_failed_rehearsal_leaves_what_was_trained(copied, capsys, monkeypatch):
    def broken(*arguments, **options):
        raise ValueError("no validation today")

    before = weights(copied)
    monkeypatch.setattr(TowerStage, "validation_step", broken)
    assert call(copied, "overwrite=true") == 2
    assert "before training: validation of one batch" in (line := error(capsys)) and "no validation today" in line
    assert weights(copied) == before and (copied / "micro/joint.ckpt").is_file()


def test_one_writer(copied):
    with one_writer(copied / "micro"):
        process = begin("train.py", "--config", copied / "micro.yaml", "overwrite=true")
        err = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 2 and f"is being written to by process {os.getpid()}" in err


@pytest.mark.parametrize("setting", ["weight_decay=0.5", "count_stage.lr=0.1"])
def test_what_the_optimizer_has_is_refused(copied, capsys, setting):
    assert call(copied, "ckpt=last", "count_stage.steps=2", setting) == 2
    key, value = setting.split("=")
    assert f"{key} " in (line := error(capsys)) and f"there, {value} here; a run that goes on cannot change it" in line


def test_a_longer_count_stage_goes_on(copied, capsys):
    assert call(copied, "ckpt=last", "count_stage.steps=2", "tower_stage.lr=0.1") == 0
    out = capsys.readouterr().out
    assert "resumes with count_stage.steps 1 there, 2 here" in out
    assert torch.load(copied / "micro/count.ckpt", weights_only=True)["global_step"] == 2


def test_fewer_steps_than_are_done_are_refused(copied, capsys):
    assert call(copied, "ckpt=last", "count_stage.steps=0") == 2
    message = error(capsys)
    assert "has done 1 steps" in message and "_stage.steps asks for 0" in message


def test_a_loss_that_is_no_number_stops_it_and_nothing_of_it_is_saved(copied, capsys):
    assert call(copied, "overwrite=true", "tower_stage.lr=1e30", "tower_stage.steps=3") == 2
    line = error(capsys)
    assert "optimizer step 2: the loss is nan" in line and "A lower tower_stage.lr may help" in line
    assert not (copied / "micro/base/model.safetensors").exists()


def test_a_run_that_is_not_there_is_named(init, tmp_path, capsys):
    write(tmp_path, init)
    assert call(tmp_path, "ckpt=last") == 2
    assert "there is no checkpoint" in (line := error(capsys)) and "tower.ckpt" in line


def test_every_option_has_a_kind():
    known = [option.key for option in options_of(CardsPretrainConfig)]
    assert len(known) > 30 and all(kind_of(key, CARDS_PRETRAINING) for key in known)


def test_a_signal_saves_the_step_at_hand(done, init, tmp_path, monkeypatch, capsys):
    def send_signal(module, *arguments) -> None:
        if module.trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    write(tmp_path, init)
    with monkeypatch.context() as patch:
        patch.setattr(JointStage, "on_train_batch_end", send_signal)
        assert call(tmp_path, "ckpt=auto", "checkpoint_every_steps=100") == 143
    err = capsys.readouterr().err
    assert "terminated (SIGTERM) after step 3; " in err and "go on with ckpt=last" in err
    assert not (tmp_path / "micro/base").exists()
    assert call(tmp_path, "ckpt=auto", "checkpoint_every_steps=100") == 0
    assert weights(tmp_path) == weights(done)
