"""Training that is killed with SIGKILL at random points: the same batches, the same weights, nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback

from gp.config import load_config
from gp.runs.folder import LAST, run_folder
from gp.training import train as runs
from tests.support.killing import kill_at, points, run_to_end
from tests.support.micro_run import save_base, write_config
from tests.support.small_shards import add_manifest

STEPS, ACCUMULATE = 10, 2
BATCHES = STEPS * ACCUMULATE


SEEN = "seen.jsonl"


class Log(Callback):
    """One line a micro-batch, before it is trained on: its number and its samples."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        number = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        with self.path.open("a") as file:
            file.write(json.dumps([number, [sample.id for sample in batch.samples]]) + "\n")


def train(folder: Path) -> None:
    """What train.py does, and a log; goes on where there is a checkpoint. Runs in a process of its own."""
    stock = runs.make_trainer

    def make_trainer(*arguments):
        trainer = stock(*arguments)
        trainer.callbacks.append(Log(folder / SEEN))
        return trainer

    runs.make_trainer = make_trainer
    config = load_config(folder / "micro.yaml")
    config.ckpt = "last" if (run_folder(config) / LAST).is_file() else None
    runs.train(config)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


def prepare(folder: Path, base: str) -> Path:
    """16 samples with a manifest, two workers, pools of two batches: all that a place in the data is made of."""
    write_config(folder, base)
    add_manifest([str(folder / f"train{shard}.tar") for shard in range(2)], [8, 8])
    path = folder / "micro.yaml"
    given = yaml.safe_load(path.read_text())
    given["data"] |= {"num_workers": 2, "bucket_batches": 2, "shuffle_buffer": 5}
    given["optim"] |= {"max_steps": STEPS}
    given["trainer"] |= {"save_every": 2, "val_every": 50, "accumulate_grad_batches": ACCUMULATE, "val_samples": 1}
    path.write_text(yaml.safe_dump(given))
    return folder


def seen_in(folder: Path) -> list[tuple[int, list[str]]]:
    lines = (folder / SEEN).read_text().splitlines()
    return [(number, ids) for number, ids in map(json.loads, lines)]


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "runs/micro/last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, base):
    """A run that nobody killed."""
    folder = prepare(tmp_path_factory.mktemp("whole"), base)
    run_to_end(train, folder)
    seen = seen_in(folder)
    assert [number for number, _ in seen] == list(range(BATCHES))
    return seen, weights_in(folder)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_killed_three_times(tmp_path, base, whole, seed):
    seen, weights = whole
    folder = prepare(tmp_path, base)
    kills = [kill_at(train, (folder,), lambda: [folder / SEEN], *point) for point in points(seed, 3, BATCHES)]
    run_to_end(train, folder)
    assert any(kills)
    found = seen_in(folder)
    assert all(ids == seen[number][1] for number, ids in found)  # also those that were done again after a kill
    assert {number for number, _ in found} == set(range(BATCHES))
    assert all(torch.equal(value, weights[name]) for name, value in weights_in(folder).items())
    assert json.loads((folder / "runs/micro/run.json").read_text())["step"] == STEPS
    assert not list((folder / "runs/micro").glob("*.tmp"))
