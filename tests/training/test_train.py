"""Whole micro runs: what they leave behind, how they resume, and what they refuse."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gp
from gp.config import load_config
from gp.runs.folder import check_folder, claim_folder, find_checkpoint
from gp.training import train as runs
from gp.training.schedule import lr_factor
from tests.support.micro_run import save_base, write_config
from tests.support.small_shards import add_manifest

ROOT = Path(__file__).resolve().parents[2]
# gradients of several micro-batches, and checkpoints between them
STEPS = ("optim.max_steps=5", "trainer.accumulate_grad_batches=2", "trainer.save_every=2", "trainer.val_every=3")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, base):
    """An uninterrupted run: its config, model and folder."""
    config = write_config(tmp_path_factory.mktemp("finished"), base, *STEPS)
    model, folder, _ = runs.train(config)
    return config, model, folder


def test_the_folder_of_a_run(finished, base):
    config, model, folder = finished
    assert folder == Path(config.runs_dir) / "micro"
    assert asdict(load_config(folder / "config.yaml")) == asdict(config)
    info = json.loads((folder / "run.json").read_text())
    assert {"commit", "dirty", "versions", "command", "started", "finished", "step", "figures"} <= set(info)
    assert info["step"] == 5 and 0 <= info["figures"]["val/keep_ratio"] <= 1
    assert not model.training and not list(folder.glob("*.tmp"))
    loaded = gp.from_pretrained(base, glimpse=folder / "glimpse")
    for name, value in model.glimpse.state_dict().items():
        assert torch.equal(value, loaded.glimpse.state_dict()[name])


def test_the_trained_parts_say_what_they_are(finished, base):
    config, _, folder = finished
    told = json.loads((folder / "glimpse/config.json").read_text())
    assert told["base"]["name"] == base and told["data"] == config.data.train and told["measured_on"] == config.data.val
    assert told["training"]["step"] == 5 and told["training"]["optim"] == asdict(config)["optim"]
    figures = json.loads((folder / "run.json").read_text())["figures"]
    assert told["metrics"] == {name: value for name, value in figures.items() if name.startswith("val/")} != {}
    results = ModelCard.load(folder / "glimpse/README.md").data.eval_results
    assert {result.metric_type for result in results} == set(told["metrics"])


def test_the_checkpoint_is_small_and_plain(finished):
    _, model, folder = finished
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == {f"model.glimpse.{name}" for name in model.glimpse.state_dict()}
    assert checkpoint["gp"]["base"]["hidden_size"] == 64 and checkpoint["global_step"] == 5
    size = sum(p.numel() * 4 for p in model.glimpse.parameters())
    assert (folder / "last.ckpt").stat().st_size < 4 * size + 100_000  # weights, two moments, and little else


def test_tensorboard_tags(finished):
    _, _, folder = finished
    events = EventAccumulator(str(folder / "tb"), size_guidance={"histograms": 0})
    events.Reload()
    tags = events.Tags()
    train = ["loss", "loss_dice", "loss_bce", "loss_answer", "keep_ratio", "lr"]
    val = ["keep_ratio", "mask_iou", "mask_precision", "mask_recall", "mask_f1", "evidence_recall", "mask_mean_iou"]
    val += ["answer_accuracy", "answer_accuracy_unpruned", "agreement"]
    wanted = {f"train/{n}" for n in train} | {f"val/{n}" for n in val} | {"perf/step_s", "perf/peak_mib"}
    assert wanted <= set(tags["scalars"])
    assert tags["histograms"] == ["train/keep_ratio_hist"]
    assert {"val/kept/0", "val/kept/1"} == set(tags["images"])
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2, 3, 4]
    assert [event.step for event in events.Histograms("train/keep_ratio_hist")] == [0, 1, 2, 3, 4]
    assert [event.step for event in events.Scalars("val/mask_iou")] == [2, 5]  # in the middle and at the end


class Stop(pl.Callback):
    """Kills a run in the middle of an optimizer step."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == 3 and batch_idx % 2 == 0:
            raise RuntimeError("killed")


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, base, finished, monkeypatch):
    config = write_config(tmp_path, base, *STEPS)
    stock = runs.make_trainer

    def killed(*arguments):
        trainer = stock(*arguments)
        trainer.callbacks.append(Stop())
        return trainer

    monkeypatch.setattr(runs, "make_trainer", killed)
    with pytest.raises(RuntimeError, match="killed"):
        runs.train(config)
    monkeypatch.setattr(runs, "make_trainer", stock)
    config.ckpt = "last"
    model, folder, _ = runs.train(config)
    _, expected, _ = finished
    for name, value in expected.glimpse.state_dict().items():
        assert torch.equal(model.glimpse.state_dict()[name], value), name
    assert json.loads((folder / "run.json").read_text())["resumed_at_step"] == 3  # saved before the validation


def test_a_finished_run_stays_as_it_is(tmp_path, base, finished):
    folder = tmp_path / "runs/micro"
    shutil.copytree(finished[2], folder)
    (folder / "eval").mkdir()
    model, *_ = runs.train(write_config(tmp_path, base, *STEPS, "ckpt=last"))
    expected = finished[1].glimpse.state_dict()
    assert all(torch.equal(model.glimpse.state_dict()[name], value) for name, value in expected.items())
    assert "val/mask_iou" in json.loads((folder / "run.json").read_text())["figures"]
    assert (folder / "eval").is_dir()


def test_the_same_seed_gives_the_same_weights(tmp_path, base, finished):
    config = write_config(tmp_path, base, *STEPS)
    model, *_ = runs.train(config)
    assert all(
        torch.equal(model.glimpse.state_dict()[name], value) for name, value in finished[1].glimpse.state_dict().items()
    )


def test_a_checkpoint_of_another_base_is_refused(tmp_path, finished):
    _, _, folder = finished
    other = save_base(tmp_path / "base", hidden=128)
    config = write_config(tmp_path, other, *STEPS, f"ckpt={folder / 'last.ckpt'}")
    with pytest.raises(ValueError, match=r"trained on another base, .*: hidden_size 64 there, 128 here"):
        runs.train(config)


def test_a_checkpoint_of_other_glimpse_settings_is_refused(tmp_path, base, finished):
    config = write_config(tmp_path, base, *STEPS, "vip.hidden_size=32", f"ckpt={finished[2] / 'last.ckpt'}")
    with pytest.raises(ValueError, match=r"last\.ckpt: vip.hidden_size 16 there, 32 here"):
        runs.train(config)


def test_a_damaged_checkpoint_is_refused(tmp_path, base, finished):
    path = tmp_path / "cut.ckpt"
    path.write_bytes((finished[2] / "last.ckpt").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.ckpt: not a checkpoint of a run, or a damaged one"):
        runs.train(write_config(tmp_path, base, f"ckpt={path}"))


def test_a_missing_checkpoint_is_named(tmp_path, base):
    config = write_config(tmp_path, base, "ckpt=last")
    with pytest.raises(FileNotFoundError, match=r"ckpt=last: there is no checkpoint .*micro/last\.ckpt"):
        find_checkpoint(config)


def test_a_refused_checkpoint_leaves_the_folder_as_it_was(tmp_path, base, finished):
    folder = tmp_path / "runs/micro"
    shutil.copytree(finished[2], folder)
    before = (folder / "config.yaml").read_text()
    with pytest.raises(ValueError, match="vip"):
        runs.train(write_config(tmp_path, base, *STEPS, "vip.hidden_size=32", "ckpt=last"))
    assert (folder / "config.yaml").read_text() == before


def test_results_are_only_overwritten_on_demand(tmp_path, base):
    config = write_config(tmp_path, base)
    assert check_folder(config, None) == []
    claim_folder(config, None)
    folder = tmp_path / "runs/micro"
    assert check_folder(config, None) == []  # nothing was trained yet
    for name in ("tb", "glimpse", "eval", "notes"):
        (folder / name).mkdir()
    (folder / "last.ckpt").touch()
    with pytest.raises(ValueError, match=r"micro holds last.ckpt, glimpse, eval .*ckpt=auto .*name=.*overwrite=true"):
        check_folder(config, None)
    config = write_config(tmp_path, base, "overwrite=true", "optim.lr=0.5")
    (notice,) = check_folder(config, None)
    assert "overwrites" in notice
    claim_folder(config, None)
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "run.json", "notes"}
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["optim"]["lr"] == 0.5 and saved["overwrite"] is False


def test_an_evaluation_of_weights_that_will_change_is_set_aside(tmp_path, base):
    claim_folder(write_config(tmp_path, base), None)
    config = write_config(tmp_path, base, "optim.max_steps=9", "ckpt=last")
    folder = tmp_path / "runs/micro"
    (folder / "last.ckpt").touch()
    (folder / "eval").mkdir()
    ckpt = find_checkpoint(config)
    assert check_folder(config, ckpt) == []
    claim_folder(config, ckpt, step=4, max_steps=9)
    assert (folder / "eval-step-4").is_dir() and not (folder / "eval").exists() and (folder / "last.ckpt").exists()


def test_a_run_of_epochs(tmp_path, base, capsys):
    """16 samples in steps of 4: 1.25 epochs are 5 steps, for the learning rate and the progress too."""
    overrides = (
        "optim.max_steps=null",
        "optim.epochs=1.25",
        "trainer.accumulate_grad_batches=2",
        "trainer.val_every=9",
    )
    config = write_config(tmp_path, base, *overrides, "optim.warmup_fraction=0.4")
    add_manifest([str(tmp_path / f"train{shard}.tar") for shard in range(2)], [8, 8])
    _, folder, _ = runs.train(config)
    out = capsys.readouterr().out
    assert "train.tar" not in out and "(16 samples)" in out and "5 of 4 samples" in out and "1.25 epochs" in out
    assert "train step 3/5  epoch 0.75/1.25" in out
    events = EventAccumulator(str(folder / "tb"))
    events.Reload()
    rates = [event.value for event in events.Scalars("train/lr")]
    assert rates == pytest.approx([1e-2 * lr_factor(step, 5, 2) for step in range(5)])


def test_epochs_without_a_manifest_are_refused(script, tmp_path, base, capsys):
    write_config(tmp_path, base)
    overrides = ["optim.max_steps=null", "optim.epochs=1"]
    assert script.main(["--config", str(tmp_path / "micro.yaml"), *overrides]) == 2
    assert "optim.epochs=1 needs the number of samples" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# ---- train.py ---------------------------------------------------------------------------------------------------


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("train_script", ROOT / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mistakes_end_with_one_line_and_status_2(script, tmp_path, base, capsys):
    assert script.main(["--config", str(tmp_path / "none.yaml")]) == 2
    write_config(tmp_path, base)
    assert script.main(["--config", str(tmp_path / "micro.yaml"), "optim.lrr=1"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "none.yaml: no such file" in first and "optim.lr" in second
    with pytest.raises(ValueError, match=r"optim\.lr"):
        script.main(["--config", str(tmp_path / "micro.yaml"), "optim.lrr=1", "--traceback"])


def test_train_py_trains(script, tmp_path, base, capsys):
    write_config(tmp_path, base)
    overrides = ["optim.max_steps=2", "eval.after_training=false", "trainer.devices=1"]
    assert script.main(["--config", str(tmp_path / "micro.yaml"), *overrides]) == 0
    out = capsys.readouterr().out
    assert "base     " in out and "train step 2/2" in out
    assert (tmp_path / "runs/micro/last.ckpt").is_file()


def test_more_devices_than_shards_are_refused(script, tmp_path, base, capsys):
    write_config(tmp_path, base)
    overrides = ["data.train=[train0.tar]", "trainer.devices=2"]
    assert script.main(["--config", str(tmp_path / "micro.yaml"), *overrides]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "1 shards for 2 devices" in line


def test_help_has_examples():
    command = [sys.executable, str(ROOT / "train.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ckpt=last" in done.stdout and "--config" in done.stdout


def test_validation_is_greedy_and_says_what_the_base_would_sway(tmp_path, capsys):
    base = save_base(tmp_path / "base")
    path = tmp_path / "base" / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "repetition_penalty": 1.05, "do_sample": True}))
    runs.train(write_config(tmp_path, base, "optim.max_steps=1"))
    said = "answers are greedy: repetition_penalty=1.05 of the base's generation config is off"
    assert capsys.readouterr().out.count(said) == 1
