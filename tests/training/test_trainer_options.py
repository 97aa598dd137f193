"""Options of the section trainer, each through the command."""

from __future__ import annotations

import csv
import importlib.util
import json

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import dataloader

import train as script
from gp.eval.loading import load_run
from tests.support.micro_run import save_base, write_config
from tests.support.small_shards import add_manifest

PERFORMANCE = ("step_s", "samples_per_s", "tokens_per_s", "data_wait", "peak_mib")
QUICK = ("eval.after_training=false", "trainer.paint_images=1")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


def run(folder, base, *overrides: str) -> int:
    write_config(folder, base)
    return script.main(["--config", str(folder / "micro.yaml"), *QUICK, *overrides])


def events_of(folder) -> EventAccumulator:
    events = EventAccumulator(str(folder / "runs/micro/tb"))
    events.Reload()
    return events


# ---- one run with many options ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rich(tmp_path_factory, base):
    """A run of 4 steps of 4 samples, of 16, that validates before and after each."""
    folder = tmp_path_factory.mktemp("rich")
    write_config(folder, base)
    add_manifest([str(folder / f"train{shard}.tar") for shard in range(2)], [8, 8])
    options = ["trainer.logger=[tensorboard,csv]", "trainer.val_before_training=true", "trainer.val_every=1"]
    options += ["trainer.best_metric=val/mask_iou", "trainer.best_kept=2", "trainer.extra.limit_val_batches=1"]
    options += ["loss.bce=0", "trainer.accumulate_grad_batches=2"]
    assert script.main(["--config", str(folder / "micro.yaml"), *QUICK, *options]) == 0
    return folder


def test_curves(rich):
    events = events_of(rich)
    tags = set(events.Tags()["scalars"])
    assert {"train/lr", "train/lr_glimpse_token", "train/grad_norm"} <= tags
    assert "train/loss_dice" in tags and "train/loss_bce" not in tags  # of weight 0
    assert all(event.value > 0 for event in events.Scalars("train/grad_norm"))
    rates = {name: [event.value for event in events.Scalars(f"perf/{name}")] for name in PERFORMANCE}
    assert rates["samples_per_s"] == pytest.approx([4 / seconds for seconds in rates["step_s"]], rel=1e-3)
    assert all(tokens > 10 * samples for tokens, samples in zip(rates["tokens_per_s"], rates["samples_per_s"]))
    assert all(0 < share < 1 for share in rates["data_wait"])


def test_epochs_are_passes_over_the_data(rich):
    epochs = {event.step: event.value for event in events_of(rich).Scalars("epoch")}
    assert [epochs[step] for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_validation_before_the_first_step(rich):
    points = events_of(rich).Scalars("val/mask_iou")
    assert [event.step for event in points] == [0, 0, 1, 2, 3]


def test_csv_holds_the_same_figures(rich):
    (path,) = (rich / "runs/micro/csv").glob("version_*/metrics.csv")
    rows = list(csv.DictReader(path.open()))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert losses == pytest.approx([event.value for event in events_of(rich).Scalars("train/loss")], rel=1e-5)


def test_the_hparams_tab_has_the_settings(rich):
    data = events_of(rich).PluginTagToContent("hparams")
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(data)
    assert b"optim.lr" in data["_hparams_/session_start_info"] and b"val/mask_iou" in data["_hparams_/experiment"]
    assert "config/text_summary" in events_of(rich).Tags()["tensors"]


def test_the_best_checkpoints_are_those_of_the_best_validations(rich):
    folder = rich / "runs/micro"
    values = [event.value for event in events_of(rich).Scalars("val/mask_iou")][1:]
    kept = sorted(folder.glob("best-*.ckpt"))
    steps = [torch.load(path, weights_only=True)["global_step"] for path in kept]
    assert len(kept) == 2 and [path.name for path in kept] == [f"best-{step:06d}.ckpt" for step in steps]
    assert sorted(values[step - 1] for step in steps) == pytest.approx(sorted(values)[-2:])
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 4
    model, _ = load_run(kept[0])
    assert model.glimpse is not None


def test_an_argument_of_lightnings_trainer_is_passed_on(rich, base, tmp_path):
    """One batch of validation, 3 of the 5 questions: not the figures of all."""
    write_config(tmp_path, base)
    assert yaml.safe_load((rich / "runs/micro/config.yaml").read_text())["trainer"]["extra"] == {"limit_val_batches": 1}
    accuracies = [event.value for event in events_of(rich).Scalars("val/agreement")]
    assert all(value * 3 == pytest.approx(round(value * 3)) for value in accuracies)


def test_a_new_run_removes_the_best_checkpoints_of_the_old_one(tmp_path, base):
    assert run(tmp_path, base, "trainer.best_metric=val/mask_iou", "optim.max_steps=2") == 0
    (best,) = (tmp_path / "runs/micro").glob("best-*.ckpt")
    stale = best.with_name("best-000099.ckpt")
    best.rename(stale)
    assert run(tmp_path, base, "trainer.best_metric=val/mask_iou", "optim.max_steps=2", "overwrite=true") == 0
    assert [path.name for path in (tmp_path / "runs/micro").glob("best-*.ckpt")] == ["best-000002.ckpt"]


# ---- stopping, rehearsing, mistakes -----------------------------------------------------------------------------


def test_a_run_that_gets_no_better_stops(tmp_path, base, capsys):
    options = ["optim.lr=1e-12", "trainer.val_every=1", "trainer.stop_metric=val/mask_iou", "trainer.stop_patience=2"]
    assert run(tmp_path, base, *options, "optim.max_steps=9") == 0
    assert "stopped early after step 3: val/mask_iou" in capsys.readouterr().out
    assert json.loads((tmp_path / "runs/micro/run.json").read_text())["step"] == 3
    assert (tmp_path / "runs/micro/glimpse").is_dir()


def test_a_fast_run_of_one_batch(tmp_path, base):
    assert run(tmp_path, base, "trainer.extra.fast_dev_run=true", "trainer.accumulate_grad_batches=2") == 0
    assert torch.load(tmp_path / "runs/micro/last.ckpt", weights_only=True)["global_step"] == 1


@pytest.mark.parametrize(
    "override, words",
    [
        ("trainer.extra.limit_val_batch=2", "'limit_val_batches'"),
        ("trainer.extra.max_steps=2", "optim.max_steps"),
        ("trainer.extra.profiler=fast", "trainer.extra.profiler fast"),
        ("trainer.logger=tensorbord", "'tensorboard'"),
        ("trainer.logger=[csv,csv]", "twice"),
        ("trainer.logger=wandb", "pip install wandb"),
        ("trainer.best_metric=val/iou", "'val/mask_iou'"),
        ("trainer.stop_patience=0", "1 or more"),
        ("trainer.max_bad_steps=-1", "0 or more"),
    ],
)
def test_mistakes_are_found_before_any_work(tmp_path, base, capsys, monkeypatch, override, words):
    stock = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else stock(name, *rest)
    )
    assert run(tmp_path, "no base", override) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("persistent, starts", [("false", 1 + 1 + 4), ("true", 1 + 1)])
def test_workers_of_validation_can_live_on(tmp_path, base, monkeypatch, persistent, starts):
    """Loaders with processes of their own: one of training, and one per validation, the rehearsed one included."""
    made, stock = [], dataloader._MultiProcessingDataLoaderIter.__init__

    def counted(self, loader):
        made.append(loader)
        stock(self, loader)

    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "__init__", counted)
    options = ["data.num_workers=1", f"data.persistent_workers={persistent}", "trainer.val_every=1"]
    assert run(tmp_path, base, *options) == 0
    assert len(made) == starts
    assert [event.step for event in events_of(tmp_path).Scalars("val/mask_iou")] == [0, 1, 2, 3]


# ---- several files ----------------------------------------------------------------------------------------------


def test_later_configs_win_key_by_key(tmp_path, base, capsys):
    write_config(tmp_path, base)
    mine = tmp_path / "mine.yaml"
    mine.write_text("optim: {max_steps: 1}\ntrainer: {val_every: 7}\n")
    files = ["--config", str(tmp_path / "micro.yaml"), "--config", str(mine)]
    assert script.main([*files, *QUICK, "trainer.val_every=5"]) == 0
    saved = yaml.safe_load((tmp_path / "runs/micro/config.yaml").read_text())
    assert saved["optim"]["max_steps"] == 1 and saved["optim"]["lr"] == 1e-2 and saved["trainer"]["val_every"] == 5
    mine.write_text("optim: {max_stepps: 1}\n")
    assert script.main(files) == 2 and f"config {mine}: unknown key" in capsys.readouterr().err
    assert script.main([*files[:2], *files[:2]]) == 2 and "given twice" in capsys.readouterr().err
