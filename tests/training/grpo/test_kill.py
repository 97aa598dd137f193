"""A run of task `grpo` that is killed with SIGKILL goes on: the same questions, draws, rewards and weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from gp.config import load_config
from gp.runs.folder import LAST, run_folder
from gp.training import train as runs
from tests.support.killing import kill_at, points, run_to_end
from tests.support.micro_plus import SETTINGS, write_plus_config
from tests.support.micro_run import save_base
from tests.support.small_shards import add_manifest

pytest.importorskip("peft")

STEPS, ACCUMULATE = 6, 2
BATCHES, SEEN = STEPS * ACCUMULATE, "seen.jsonl"


class Log(Callback):
    """One line a micro-batch, behind it: its number, and questions with what was drawn and how it was rewarded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        number = trainer.fit_loop.epoch_loop.batch_progress.total.ready - 1
        with self.path.open("a") as file:
            file.write(json.dumps([number, [sample.id for sample in batch.samples], outputs["rollouts"]]) + "\n")


def train(folder: Path) -> None:
    """What train.py does, and a log; goes on where there is a checkpoint. Runs in a process of its own."""
    stock = runs.make_trainer

    def make_trainer(*arguments):
        trainer = stock(*arguments)
        trainer.callbacks.append(Log(folder / SEEN))
        return trainer

    runs.make_trainer = make_trainer
    more = ("trainer.save_every=2", f"trainer.accumulate_grad_batches={ACCUMULATE}", f"optim.max_steps={STEPS}")
    config = load_config(folder / "micro.yaml", [*SETTINGS, *more, "trainer.val_every=50", "trainer.val_samples=1"])
    config.ckpt = "last" if (run_folder(config) / LAST).is_file() else None
    runs.train(config)


def prepare(folder: Path, base: str) -> Path:
    write_plus_config(folder, base)
    add_manifest([str(folder / f"train{shard}.tar") for shard in range(2)], [8, 8])
    return folder


def found_in(folder: Path) -> tuple[list, dict[str, torch.Tensor]]:
    lines = [json.loads(line) for line in (folder / SEEN).read_text().splitlines()]
    return lines, torch.load(folder / "runs/micro/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
def test_killed_twice(tmp_path):
    base = save_base(tmp_path / "base")
    whole, killed = (prepare(tmp_path / name, base) for name in ("whole", "killed"))
    run_to_end(train, whole)
    kills = [kill_at(train, (killed,), lambda: [killed / SEEN], *point) for point in points(3, 2, BATCHES)]
    run_to_end(train, killed)
    assert any(kills)
    (lines, weights), (again, others) = found_in(whole), found_in(killed)
    assert [number for number, *_ in lines] == list(range(BATCHES))
    assert all(line == lines[line[0]] for line in again)  # also those that were done again behind a kill
    assert {number for number, *_ in again} == set(range(BATCHES))
    assert weights.keys() == others.keys() and any(float(w.abs().max()) > 0 for k, w in weights.items() if "_B" in k)
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())
