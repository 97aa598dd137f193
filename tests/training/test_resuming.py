"""Runs that go on, through the command: what they may change, what holds then, and what is never lost."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import evaluate
import train
from gp.config.plus import PlusConfig
from gp.config.schema import TrainConfig
from gp.runs.lock import one_writer
from gp.runs.resuming import KINDS, PLUS, kind_of
from gp.training.schedule import lr_factor
from tests.support.micro_run import save_base, write_config
from tests.support.small_shards import add_manifest
from tests.support.train_command import checkpoint, finish, start, wait_for

STEPS = ("trainer.val_every=50", "trainer.save_every=50", "trainer.val_samples=1", "eval.after_training=false")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, base):
    """A run of 4 steps."""
    folder = tmp_path_factory.mktemp("finished")
    write_config(folder, base)
    assert call(folder) == 0
    return folder


@pytest.fixture
def micro(tmp_path, finished) -> Path:
    """A copy of it: data, config and `runs/micro`."""
    folder = tmp_path / "micro"
    shutil.copytree(finished, folder)
    path = folder / "micro.yaml"
    path.write_text(path.read_text().replace(str(finished), str(folder)))
    return folder


def call(folder: Path, *overrides: str) -> int:
    return train.main(["--config", str(folder / "micro.yaml"), *STEPS, *overrides])


def rates(folder: Path) -> dict[int, float]:
    """Optimizer step -> the VIP's learning rate, as TensorBoard has it."""
    events = EventAccumulator(str(folder / "runs/micro/tb"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars("train/lr")}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".writer" not in path.name}


# ---- settings ------------------------------------------------------------------------------------------------------


def keys(schema: type, prefix: str = "") -> list[str]:
    found = []
    for one in fields(schema):
        section = one.default_factory if is_dataclass(one.default_factory) else None
        found += keys(section, f"{prefix}{one.name}.") if section else [f"{prefix}{one.name}"]
    return found


def test_every_option_has_a_kind():
    known = keys(TrainConfig)
    assert len(known) > 60 and all(kind_of(key) for key in known)
    assert set(KINDS) <= set(known)


def test_every_option_of_grpo_has_a_kind():
    known = keys(PlusConfig)
    assert all(kind_of(key, PLUS) for key in known) and set(PLUS) <= set(known)


def test_new_settings_of_the_optimizer_hold_from_the_first_step(micro, capsys):
    """12 steps in place of 4, from step 4 on: rates of the new schedule, and everything else in the optimizer."""
    changes = ("optim.lr=0.004", "optim.glimpse_lr_scale=3", "optim.weight_decay=0.2", "optim.betas=[0.8,0.9]")
    more = ("optim.max_steps=12", "optim.warmup_fraction=0.5", "optim.final_lr_fraction=0.1")
    assert call(micro, "ckpt=last", *changes, *more) == 0
    out = capsys.readouterr().out
    for key, old, new in (("lr", "0.01", "0.004"), ("weight_decay", "0.0", "0.2"), ("max_steps", "4", "12")):
        assert f"resumes with optim.{key} {old} there, {new} here" in out
    found = rates(micro)
    expected = {step: 0.004 * lr_factor(step, 12, 6, 0.1) for step in range(4, 12)}
    assert {step: found[step] for step in expected} == pytest.approx(expected)
    (optimizer,) = checkpoint(micro)["optimizer_states"]
    groups = optimizer["param_groups"]
    assert [g["initial_lr"] for g in groups] == pytest.approx([0.012, 0.012, 0.004, 0.004])
    assert [g["weight_decay"] for g in groups] == [0.2, 0.0, 0.2, 0.0]
    assert all(tuple(g["betas"]) == (0.8, 0.9) for g in groups)


def test_the_weights_follow_the_new_rate(micro):
    """With almost no rate the weights stay where they were."""
    before = checkpoint(micro)["state_dict"]
    assert call(micro, "ckpt=last", "optim.max_steps=6", "optim.lr=1e-12") == 0
    after = checkpoint(micro)["state_dict"]
    assert all(torch.allclose(value, after[name], rtol=0, atol=1e-9) for name, value in before.items())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=3", ("seed 0 there, 3 here", "give seed=0")),
        ("glimpse.init_from_prompt=true", ("glimpse.init_from_prompt False there",)),
        ("data.shuffle_buffer=7", ("data.shuffle_buffer 1000 there, 7 here",)),
        ("data.train=[train0.tar]", ("number of shards", "2", "1")),
        ("model.revision=abc", ("model.revision",)),
        ("optim.max_steps=3", ("has done 4 steps", "ask for 3")),
        ("glimpse.prune_layer=1", ("glimpse.prune_layer 2 there, 1 here",)),
        ("glimpse.attention_logits=false", ("glimpse.attention_logits True there, False here",)),
        ("glimpse.read_layers=[1]", ("glimpse.read_layers [2] there, [1] here",)),
        ("vip.taps=[1,3]", ("vip.taps [3, 1] there, [1, 3] here",)),
        ("vip.num_heads=4", ("vip.num_heads 2 there, 4 here",)),
        ("vip.attention=window", ("vip.attention global there, window here",)),
    ],
)
def test_what_cannot_change_is_refused_and_nothing_is_touched(micro, capsys, override, words):
    before = snapshot(micro / "runs")
    assert call(micro, "ckpt=last", override) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert all(word in line for word in words), line
    assert snapshot(micro / "runs") == before


def test_the_same_meaning_in_other_words_is_taken(micro):
    assert call(micro, "ckpt=last", "glimpse.read_layers=[2]", "optim.max_steps=5") == 0


def test_an_evaluation_refuses_another_meaning(micro, capsys):
    assert evaluate.main([f"ckpt={micro / 'runs/micro/last.ckpt'}", "vip.taps=[1,3]", "pruner=glimpse"]) == 2
    assert "vip.taps [3, 1] there, [1, 3] here" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["last.ckpt", "glimpse"])
def test_flipped_bytes_of_weights_are_found(micro, capsys, name):
    path = micro / "runs/micro" / name
    file = path if path.is_file() else path / "glimpse.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert evaluate.main([f"ckpt={path}", "pruner=glimpse", "num_samples=1"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert str(path) in line and ("checksum" in line or "sha256" in line)


def test_an_edited_prune_layer_is_found_in_a_folder_and_an_edited_threshold_is_not(micro, capsys):
    path = micro / "runs/micro/glimpse/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "prune": {**config["prune"], "threshold": 0.25}}))
    assert evaluate.main([f"ckpt={path.parent}", "pruner=glimpse", "num_samples=1"]) == 0
    path.write_text(json.dumps({**config, "glimpse": {**config["glimpse"], "prune_layer": 1}}))
    assert evaluate.main([f"ckpt={path.parent}", "pruner=glimpse", "num_samples=1"]) == 2
    assert "sha256 differs" in capsys.readouterr().err


# ---- samples -------------------------------------------------------------------------------------------------------

LOG = """
from pathlib import Path
from gp.training.module import GlimpseModule
stock = GlimpseModule.training_step
def step(self, batch, batch_idx):
    with (Path({folder!r}) / f"log{{self.trainer.global_rank}}").open("a") as file:
        file.write(chr(10).join(sample.id for sample in batch.samples) + chr(10))
    {extra}
    return stock(self, batch, batch_idx)
GlimpseModule.training_step = step
"""
EPOCHS = (
    "optim.max_steps=null",
    "optim.epochs=2",
    "data.batch_size=1",
    "trainer.val_every=50",
    "trainer.val_samples=2",
)


def run_logged(folder: Path, *overrides: str, stop_at: int | None = None) -> tuple[str, str]:
    """Trains in processes of its own, up to a step; returns what it printed."""
    end = f"__import__('os').kill(__import__('os').getpid(), 15) if self.trainer.global_step == {stop_at} else None"
    patch = LOG.format(folder=str(folder), extra=end if stop_at else "pass")
    status, out, err = finish(start(folder, *EPOCHS, "ckpt=auto", *overrides, patch=patch))
    assert status == (143 if stop_at else 0), err
    return out, err


def trained_on(folder: Path) -> Counter[str]:
    return Counter(line for path in folder.glob("log?") for line in path.read_text().splitlines())


@pytest.fixture
def counted(tmp_path, base) -> Path:
    """16 samples with a manifest."""
    write_config(tmp_path, base)
    add_manifest([str(tmp_path / f"train{shard}.tar") for shard in range(2)], [8, 8])
    return tmp_path


@pytest.mark.parametrize(
    ("first", "stop_at", "then"),
    [
        (("trainer.devices=2",), 4, ("trainer.devices=1",)),  # 10 of 32 samples in 5 steps, then 22 steps
        pytest.param(("trainer.devices=1",), 9, ("trainer.devices=2",), marks=pytest.mark.slow),  # 10 in 10, then 11
        pytest.param(
            ("data.batch_size=4",),
            2,
            ("data.batch_size=1", "trainer.accumulate_grad_batches=2"),
            marks=pytest.mark.slow,
        ),  # 12 in 3, then 10
    ],
)
def test_each_sample_comes_as_often_as_epochs_say(counted, first, stop_at, then):
    run_logged(counted, *first, stop_at=stop_at)
    begun = checkpoint(counted)["global_step"]
    assert begun == stop_at + 1
    out, _ = run_logged(counted, *then)
    assert set(trained_on(counted).values()) == {2} and len(trained_on(counted)) == 16
    step = checkpoint(counted)["global_step"]
    assert re.search(rf"train step {step}/{step} +epoch 2\.00/2 ", out)
    found, per_step = rates(counted), 1 if then == ("trainer.devices=1",) else 2
    total = 32 / per_step  # the schedule is the one of a run that always had steps of this size
    last = {step - left: 0.01 * lr_factor(total - left, total, round(0.1 * total)) for left in range(1, 9)}
    assert {step: found[step] for step in last} == pytest.approx(last)


def test_validations_come_in_the_rhythm_of_the_new_accumulation(micro, capsys):
    more = ("optim.max_steps=9", "trainer.val_every=3", "trainer.accumulate_grad_batches=3")
    assert call(micro, "ckpt=last", *more) == 0
    out = capsys.readouterr().out
    assert re.findall(r"val step (\d+)/9", out) == ["6", "9"]
    assert checkpoint(micro)["global_step"] == 9
    assert checkpoint(micro)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == 27


# ---- folders -------------------------------------------------------------------------------------------------------


def test_the_same_command_again_removes_nothing(micro, capsys):
    before = snapshot(micro / "runs")
    assert call(micro) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert all(word in line for word in ("last.ckpt", "ckpt=auto", "overwrite=true", "name="))
    assert snapshot(micro / "runs") == before
    assert call(micro, "name=other") == 0
    assert call(micro, "overwrite=true", "optim.max_steps=2") == 0
    assert checkpoint(micro)["global_step"] == 2


def test_results_without_a_checkpoint_are_results(micro, capsys):
    (micro / "runs/micro/last.ckpt").unlink()
    assert call(micro, "ckpt=auto") == 2
    assert "holds glimpse of a run" in capsys.readouterr().err and (micro / "runs/micro/glimpse").is_dir()


def test_auto_starts_and_then_goes_on(tmp_path, base, capsys):
    write_config(tmp_path, base)
    for steps, begun in ((2, 0), (5, 2), (5, 5)):
        assert call(tmp_path, "ckpt=auto", f"optim.max_steps={steps}") == 0
        assert json.loads((tmp_path / "runs/micro/run.json").read_text())["resumed_at_step"] == begun
    assert call(tmp_path, "ckpt=auto", "overwrite=true") == 2
    assert "contradict" in capsys.readouterr().err


def test_one_writer(tmp_path, base, capsys):
    """The second command says who holds the folder; a killed one holds nothing."""
    write_config(tmp_path, base)
    first = start(tmp_path, "optim.max_steps=100000", "trainer.save_every=1", "trainer.val_every=100000")
    wait_for(first, lambda: (tmp_path / "runs/micro/last.ckpt").exists())
    assert call(tmp_path, "ckpt=auto") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert f"process {first.pid} on" in line and re.search(r"since \d{4}-\d\d-\d\dT", line)
    first.kill()
    finish(first)
    step = checkpoint(tmp_path)["global_step"]
    assert call(tmp_path, "ckpt=auto", f"optim.max_steps={step + 1}") == 0


def test_a_folder_in_which_nothing_was_made_is_gone(tmp_path):
    with pytest.raises(KeyError), one_writer(tmp_path / "runs/a"), one_writer(tmp_path / "runs/a"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0", "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_NODELIST": "localhost",
}  # fmt: skip


def test_slurm_neither_leaves_a_file_nor_goes_on_with_one(tmp_path, base, monkeypatch):
    """A job's checkpoint of Lightning, of another run, lies in the working directory; SIGUSR1 comes before the end."""
    write_config(tmp_path, base)
    work = tmp_path / "work"
    work.mkdir()
    (work / "hpc_ckpt_1.ckpt").write_bytes(b"of another run")
    steps = ("optim.max_steps=100000", "trainer.save_every=3", "trainer.val_every=100000")
    process = start(tmp_path, *steps, cwd=work, **SLURM)
    wait_for(process, lambda: (tmp_path / "runs/micro/last.ckpt").exists())
    process.send_signal(10)
    status, _, err = finish(process)
    assert status == 143 and "SIGUSR1" in err and "Traceback" not in err
    assert [path.name for path in work.iterdir()] == ["hpc_ckpt_1.ckpt"]
    assert not list((tmp_path / "runs").rglob("hpc_ckpt*"))


def test_a_config_written_by_a_run_can_be_used_again(micro):
    assert call(micro, "overwrite=true") == 0
    assert not yaml.safe_load((micro / "runs/micro/config.yaml").read_text())["overwrite"]
    assert train.main(["--config", str(micro / "runs/micro/config.yaml"), "ckpt=last", "optim.max_steps=5"]) == 0
