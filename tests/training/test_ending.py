"""Real signals to a real `train.py`, killed loader processes, no memory: a checkpoint, one line, a status."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.support.micro_run import save_base, write_config
from tests.support.train_command import checkpoint, finish, start, wait_for

# nothing is saved by itself; a step has two micro-batches, of which each writes a line and takes a while
STEPS = ("optim.max_steps=400", "trainer.save_every=1000", "trainer.val_every=1000", "trainer.log_every=1000")
ACCUMULATE = "trainer.accumulate_grad_batches=2"
SLOW = """
import time
from pathlib import Path
from gp.training.module import GlimpseModule
stock = GlimpseModule.training_step
def step(self, batch, batch_idx):
    with Path({log!r}).open("a") as file:
        file.write(" ".join(sample.id for sample in batch.samples) + chr(10))
    time.sleep({pause})
    {extra}
    return stock(self, batch, batch_idx)
GlimpseModule.training_step = step
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


def begin(folder: Path, base: str, *overrides: str, pause: float = 0.05, extra: str = "pass", config: bool = True):
    if config:
        write_config(folder, base)
    patch = SLOW.format(log=str(folder / "log"), pause=pause, extra=extra)
    return start(folder, *STEPS, ACCUMULATE, *overrides, patch=patch)


def lines(folder: Path) -> int:
    return (folder / "log").read_bytes().count(b"\n") if (folder / "log").exists() else 0


def assert_one_line(err: str, *words: str) -> None:
    (line,) = [line for line in err.splitlines() if line.strip() and "it/s]" not in line]  # bars of transformers
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [  # the other two come in the tests of a second signal and of SLURM, too
        (signal.SIGTERM, 143, "terminated"),
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 143, "terminated", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_run_after_its_step(tmp_path, base, number, status, word):
    process = begin(tmp_path, base)
    wait_for(process, lambda: lines(tmp_path) >= 5)
    process.send_signal(number)
    found, _, err = finish(process)
    step = checkpoint(tmp_path)["global_step"]
    assert found == status and step == lines(tmp_path) / 2  # the step at hand was finished, and none was begun
    assert_one_line(err, word, signal.Signals(number).name, f"holds step {step}", "ckpt=last")


@pytest.mark.slow  # the tests of going on have each half of it
def test_what_is_saved_goes_on_as_if_nothing_had_been(tmp_path, base):
    """Interrupted twice, by a signal and within a step by want of memory: the weights of a run that was not."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        write_config(folder, base)
    short = ("optim.max_steps=12", "ckpt=auto")
    assert finish(begin(whole, base, *short, pause=0, config=False))[0] == 0
    process = begin(broken, base, *short, config=False)
    wait_for(process, lambda: lines(broken) >= 5)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143
    fails = 'if self.trainer.global_step == 8 and batch_idx % 2: raise MemoryError("out of memory")'
    status, _, err = finish(begin(broken, base, *short, pause=0, extra=fails, config=False))
    assert status == 1 and checkpoint(broken)["global_step"] == 8
    assert_one_line(err, "out of memory", "holds step 8")
    assert finish(begin(broken, base, *short, pause=0, config=False))[0] == 0
    assert_same(checkpoint(whole), checkpoint(broken))


def assert_same(one: dict, other: dict) -> None:
    assert one["global_step"] == other["global_step"]
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


def test_a_killed_loader_process(tmp_path, base):
    process = begin(tmp_path, base, "data.num_workers=1")
    wait_for(process, lambda: lines(tmp_path) >= 5)
    (child,) = loaders(process)
    os.kill(child, signal.SIGKILL)
    status, _, err = finish(process)
    step = checkpoint(tmp_path)["global_step"]
    assert status == 1 and step >= 2
    assert "Traceback" not in err
    assert_one_line(err, "loads data has died", f"holds step {step}")


def loaders(process: subprocess.Popen) -> list[int]:
    """Children of the process that are copies of it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == process.pid and "micro.yaml" in (path / "cmdline").read_text():
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_a_second_signal_does_not_wait(tmp_path, base):
    process = begin(tmp_path, base, extra="time.sleep(60 if self.trainer.global_step == 2 else 0)")
    wait_for(process, lambda: lines(tmp_path) >= 5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 130 and time.monotonic() - begun < 30
    assert_one_line(err, "interrupted", "holds step 2")
    assert checkpoint(tmp_path)["global_step"] == 2
