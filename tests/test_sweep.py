"""`train.py seed=0,1` and `evaluate.py ckpt=A,B` as users start them: one run after the other, and one table."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import pytest

from tests.support.commands import begin, finish
from tests.support.micro_run import save_base, write_config

STEPS = "optim.max_steps=2"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two seeds, trained and evaluated; the folder, and what the command printed."""
    folder = tmp_path_factory.mktemp("sweep")
    write_config(folder, save_base(folder / "base"))
    return folder, train(folder, "seed=0,1", STEPS)


def train(folder: Path, *overrides: str, status: int = 0) -> str:
    common = ["eval.costs=false", "eval.overlays=0"]
    return finish(begin("train.py", "--config", str(folder / "micro.yaml"), *common, *overrides), status)


def summary(folder: Path) -> list[dict]:
    return json.loads((folder / "summary.json").read_text())


def check_joint(joint: list[dict], singles: dict[str, Path]) -> None:
    """All rows of the single evaluations, then mean and standard deviation of each of them."""
    count = len(joint) // (len(singles) + 1)
    expected = [{"run": label, **row} for label, folder in singles.items() for row in summary(folder)]
    assert joint[: count * len(singles)] == expected
    for mean in joint[count * len(singles) :]:
        members = [row for row in expected if (row["pruner"], row["budget"]) == (mean["pruner"], mean["budget"])]
        assert mean["runs"] == list(singles) and len(members) == len(singles)
        for name in ("keep_ratio", "answer_accuracy", "mask_iou"):
            values = [row[name] for row in members]
            assert mean[name] == pytest.approx(statistics.mean(values), abs=1e-6)
            assert mean[f"{name}_std"] == pytest.approx(statistics.stdev(values), abs=1e-6)


def test_a_sweep_trains_each_member_and_joins_them(swept):
    folder, printed = swept
    runs = {f"seed={seed}": folder / f"runs/micro-seed={seed}" for seed in (0, 1)}
    for seed, run in enumerate(runs.values()):
        assert f"\nseed: {seed}\n" in (run / "config.yaml").read_text() and (run / "last.ckpt").is_file()
        assert f"run {seed + 1} of 2, seed={seed}: {run}" in printed
    joint = folder / "runs/micro-sweep"
    check_joint(summary(joint), {label: run / "eval" for label, run in runs.items()})
    assert "mean of 2" in printed and f"report: {joint / 'report.md'}" in printed
    assert (joint / "accuracy-test.png").is_file() and "±" in (joint / "report.md").read_text()


@pytest.mark.slow
def test_the_same_command_goes_on_with_what_is_missing(swept, tmp_path):
    folder = shutil.copytree(swept[0], tmp_path / "copy")
    config = folder / "micro.yaml"
    config.write_text(config.read_text().replace(str(swept[0]), str(folder)))
    for run in folder.glob("runs/micro-seed=*"):
        (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(str(swept[0]), str(folder)))
    shutil.rmtree(folder / "runs/micro-seed=1")
    before = (folder / "runs/micro-seed=0/last.ckpt").stat().st_mtime_ns
    printed = train(folder, "seed=0,1", STEPS, "ckpt=auto")
    assert "run 1 of 2, seed=0: finished before" in printed
    assert (folder / "runs/micro-seed=0/last.ckpt").stat().st_mtime_ns == before
    assert summary(folder / "runs/micro-sweep") == summary(swept[0] / "runs/micro-sweep")
    assert "holds" in failure(folder, "seed=0,1", STEPS)  # without ckpt=auto nothing is touched


def failure(folder: Path, *overrides: str) -> str:
    process = begin("train.py", "--config", str(folder / "micro.yaml"), *overrides)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 2 and "Traceback" not in errors
    return errors


def test_a_mistake_in_any_member_is_one_before_the_first_is_trained(swept):
    folder = swept[0]
    assert "optim.lr" in failure(folder, "optim.lr=1e-3,-1", "name=wrong")
    assert not list(folder.glob("runs/wrong*"))


@pytest.mark.slow
def test_several_checkpoints_in_one_table(swept, tmp_path):
    folder = swept[0]
    out = tmp_path / "joint"
    given = ["pruner=glimpse,random", "eval.costs=false", "eval.overlays=0", f"out={out}"]
    printed = finish(begin("evaluate.py", f"ckpt={folder}/runs/micro-seed=*", *given))
    labels = ["micro-seed=0", "micro-seed=1"]
    check_joint(summary(out), {label: out / label for label in labels})
    assert all(f"checkpoint {number} of 2, {label}" in printed for number, label in enumerate(labels, 1))
    again = finish(begin("evaluate.py", f"ckpt={folder}/runs/micro-seed=0,{folder}/runs/micro-seed=1/glimpse", *given))
    assert "mean of 2" in again  # a folder of trained parts is of the run around it


def test_a_checkpoint_that_is_not_there_is_named_before_the_first(swept, tmp_path):
    run = swept[0] / "runs/micro-seed=0"
    for ckpt, message in (
        (f"{run},nowhere", "nowhere: no such file"),
        ("runs/none-*", "runs/none-*: no file or folder"),
    ):
        process = begin("evaluate.py", f"ckpt={ckpt}", f"out={tmp_path / 'o'}")
        assert message in process.communicate(timeout=300)[1] and process.returncode == 2
    assert not (tmp_path / "o").exists()
