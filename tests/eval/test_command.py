"""The command line of evaluate.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gp.commands import evaluate

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    call = [sys.executable, "evaluate.py", *arguments]
    return subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_short_keys():
    ckpt, overrides = evaluate.split_settings(
        ["pruner=all", "ckpt=runs/a=b/last.ckpt", "budget=0.05,null", "split=[x,y]", "num_samples=3", "seed=1", "out=o"]
    )
    assert ckpt == "runs/a=b/last.ckpt"
    assert overrides == [
        "eval.pruners=[all]",
        "eval.budgets=[0.05,null]",
        "eval.splits=[x,y]",
        "eval.num_samples=3",
        "seed=1",
        "eval.out=o",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split=test"], "error: command line: no checkpoint, give ckpt=PATH"),
        (["ckpt=nowhere/last.ckpt"], "error: ckpt nowhere/last.ckpt: no such file or folder"),
        (["last.ckpt"], "error: command line: expected key=value, got 'last.ckpt'"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, message, capsys):
    assert evaluate.main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(message)


def test_mistakes_in_the_config_are_one_line_too(micro, capsys):
    assert evaluate.main([f"ckpt={micro.ckpt}", "prunr=none"]) == 2
    assert "unknown key 'prunr'; the nearest known one is 'prune" in capsys.readouterr().err
    assert evaluate.main([f"ckpt={micro.ckpt}", "split=tset"]) == 2
    assert "eval.splits ['tset'] not in data.test" in capsys.readouterr().err
    assert evaluate.main([f"ckpt={micro.ckpt}", "eval.methods.random.layer=1"]) == 2
    assert "error: eval.methods.random: pruner 'random' has no setting 'layer'" in capsys.readouterr().err
    assert evaluate.main([f"ckpt={micro.ckpt}", "pruner=random", "eval.reference=oracle"]) == 2
    assert "error: eval.reference: no row 'oracle' to compare with, there are none-own, gl" in capsys.readouterr().err
    with pytest.raises(ValueError, match="prunr"):
        evaluate.main([f"ckpt={micro.ckpt}", "prunr=none", "--traceback"])


def test_several_configs_through_the_command(micro, tmp_path, capsys):
    more = tmp_path / "more.yaml"
    more.write_text("eval:\n  pruners: [oracle]\n  num_samples: 3\n  costs: false\n  overlays: 0\n")
    files = ["--config", str(micro.run / "config.yaml"), "--config", str(more)]
    assert evaluate.main([f"ckpt={micro.ckpt}", *files, f"out={tmp_path / 'out'}"]) == 0
    rows = json.loads((tmp_path / "out/summary.json").read_text())
    assert [(row["pruner"], row["num_samples"]) for row in rows] == [("none", 3), ("oracle", 3)]
    more.write_text("eval:\n  overlays: x\n")
    assert evaluate.main([f"ckpt={micro.ckpt}", *files]) == 2
    assert f"error: config {more}: eval.overlays" in capsys.readouterr().err


def test_help_names_every_short_key():
    done = command("--help")
    assert done.returncode == 0
    for key in ("ckpt=", "pruner=", "budget=", "split=", "num_samples=", "out=", "--config", "--traceback"):
        assert key in done.stdout


def test_a_real_run(micro, tmp_path):
    done = command(f"ckpt={micro.ckpt}", "pruner=oracle,random", "budget=0.5", f"out={tmp_path}", "num_samples=5")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["pruner"], row["budget"], row["num_samples"]) for row in rows] == [
        ("none", None, 5),
        ("random", 0.5, 5),
        ("oracle", None, 5),
    ]
    for word in ("split test", "accuracy %", "answers/s", "rows/s", "report.md", "report.html"):
        assert word in done.stdout, done.stdout
    assert f"ckpt={micro.ckpt}" in (tmp_path / "report.md").read_text()
