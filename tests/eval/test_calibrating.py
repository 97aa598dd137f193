"""`evaluate.py calibrate=`: from the command to the threshold in the trained parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import evaluate
import gp
from gp.eval import calibrating
from gp.eval.calibration import lower_bound


@pytest.fixture(scope="module")
def run(micro, tmp_path_factory) -> Path:
    """A copy of the run, whose trained parts get the threshold."""
    return shutil.copytree(micro.run, tmp_path_factory.mktemp("calibrated") / "micro")


@pytest.fixture(scope="module")
def calibrated(run) -> dict:
    wanted = ["calibrate=part", "agreement=0.4", "confidence=0.6", "threshold=0.6,1e-30,0.999"]
    assert evaluate.main([f"ckpt={run}", *wanted, "data.test.rest=[test-1.tar]", "split=rest"]) == 0
    return json.loads((run / "eval-calibration/threshold.json").read_text())


def test_it_chooses_by_the_answers_of_the_split(run, calibrated):
    rows = json.loads((run / "eval-calibration/calibration/summary.json").read_text())
    assert {row["split"] for row in rows} == {"part"}
    of = {row["threshold"]: row for row in rows if row["threshold"] is not None}
    assert sorted(of) == [1e-30, 0.6, 0.999]
    for one in calibrated["tried"]:
        row = of[one["threshold"]]
        assert one["agreed"] == round(row["agreement"] * row["num_samples"]) and one["keep_ratio"] == row["keep_ratio"]
        assert one["bound"] == pytest.approx(lower_bound(one["agreed"], row["num_samples"], 0.6))
    kept = [one["keep_ratio"] for one in calibrated["tried"]]
    assert kept[0] == 1 and kept == sorted(kept, reverse=True) and kept[-1] < kept[0]
    assert calibrated["tried"][0]["agreed"] == calibrated["tried"][0]["total"]
    assert calibrated["chosen"]["bound"] >= 0.4


def test_the_trained_parts_say_it(run, calibrated, micro):
    config = json.loads((run / "glimpse/config.json").read_text())
    threshold = calibrated["chosen"]["threshold"]
    assert config["calibration"]["threshold"] == config["prune"]["threshold"] == threshold
    told = {key: config["calibration"][key] for key in ("split", "agreement", "confidence", "num_samples", "agreed")}
    assert told == {
        "split": "part", "agreement": 0.4, "confidence": 0.6,
        "num_samples": calibrated["chosen"]["total"], "agreed": calibrated["chosen"]["agreed"],
    }  # fmt: skip
    assert gp.from_pretrained(micro.base, glimpse=run / "glimpse").options.threshold == threshold


def test_it_is_tried_on_questions_that_it_has_not_seen(run, calibrated):
    (check,) = calibrated["check"]
    rows = json.loads((run / "eval-calibration/check/summary.json").read_text())
    at = {row["threshold"]: row for row in rows if row["pruner"] == "glimpse"}
    assert check["split"] == "rest" and at.keys() == {None, calibrated["chosen"]["threshold"]}
    assert check["agreement"] == at[calibrated["chosen"]["threshold"]]["agreement"]
    assert check["before"]["keep_ratio"] == at[None]["keep_ratio"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["calibrate=vall"], "calibrate=vall: no such split; the nearest one is 'val'"),
        (["calibrate=part"], "calibrate=part: eval.splits ['test'] has no split of other shards"),
        (["calibrate=part", "agreement=1"], "agreement=1.0: expected a number in (0, 1)"),
        (["calibrate=part", "confidence=sure"], "confidence=sure: expected a number"),
        (
            ["calibrate=part", "split=rest", "data.test.rest=[test-1.tar]", "num_samples=298"],
            "needs 299 questions or more",
        ),
        (["agreement=0.9"], "agreement= and confidence= go with calibrate=SPLIT"),
        (["calibrate=part", "bench=tiny"], "calibrate= needs ckpt=PATH of one checkpoint, and no bench="),
    ],
)
def test_mistakes_are_one_line_and_status_2(micro, arguments, message, capsys):
    assert evaluate.main([f"ckpt={micro.run}", *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def answered(monkeypatch) -> list[list[str]]:
    """Evaluations are written down, not run; every threshold from 0.3 on misses."""
    commands: list[list[str]] = []

    def run_command(program: Path, arguments: list[str], what: str, again: str) -> None:
        commands.append(arguments)
        last = {key: value for key, _, value in (text.partition("=") for text in arguments)}
        rows = [
            {"threshold": one, "num_samples": 600, "agreement": 1 if one < 0.3 else 0.5, "keep_ratio": 0.1}
            for one in json.loads(last["eval.thresholds"])
        ]
        out = Path(last["eval.out"])
        out.mkdir(parents=True, exist_ok=True)
        found = [{**row, "split": "rest", "pruner": "glimpse", "budget": None} for row in rows]
        own = [{**row, "threshold": None} for row in found[:1]]
        for row in (*found, *own):
            row |= {"answer_accuracy": 1, "answer_accuracy_unpruned": 1}
        (out / "summary.json").write_text(json.dumps([*found, *own]))

    monkeypatch.setattr(calibrating, "run_command", run_command)
    return commands


def test_thresholds_above_the_first_miss_are_not_asked(micro, answered, tmp_path):
    run = shutil.copytree(micro.run, tmp_path / "micro")
    rest = ["data.test.rest=[test-1.tar]", "split=rest", "eval.num_samples=null", "confidence=0.9"]
    thresholds = "threshold=" + ",".join(f"0.{n}" for n in range(1, 10))
    assert evaluate.main([f"ckpt={run}", "calibrate=part", thresholds, *rest]) == 0
    said = [next(text for text in command if text.startswith("eval.thresholds=")) for command in answered]
    assert said == ["eval.thresholds=[0.1, 0.2, 0.3, 0.4]", "eval.thresholds=[0.2]"]  # the second one: the other split


def test_all_questions_of_the_split_are_asked_whatever_the_config_draws(micro, answered, tmp_path):
    run = shutil.copytree(micro.run, tmp_path / "micro")
    rest = ["data.test.rest=[test-1.tar]", "split=rest", "threshold=0.1"]
    for given, said in (([], True), (["num_samples=400"], False)):
        answered.clear()
        assert evaluate.main([f"ckpt={run}", "calibrate=part", *rest, *given]) == 0
        assert ("eval.num_samples=null" in answered[0]) == said and "eval.num_samples=null" not in answered[1]


@pytest.mark.slow
def test_a_promise_that_no_threshold_keeps(run, calibrated, capsys):
    """The answers are there from before, so this asks nothing again."""
    before = (run / "glimpse/config.json").read_bytes()
    wanted = ["calibrate=part", "agreement=0.999", "threshold=0.6,1e-30,0.999"]
    assert evaluate.main([f"ckpt={run}", *wanted, "data.test.rest=[test-1.tar]", "split=rest"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "threshold 1e-30, the lowest, keeps" in line and "even with none that differs the bound is lower" in line
    assert (run / "glimpse/config.json").read_bytes() == before
