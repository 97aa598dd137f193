"""Means over runs: every figure of the rows, whatever scorers there are; and what a table shows of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from statistics import fmean, stdev

import pytest
from rich.console import Console

from gp.eval.joint import join, means_of

SCORERS = ("anls", "vqa_accuracy", "relaxed_accuracy", "choice", "containment")


@pytest.fixture
def folders(evaluated: Path, tmp_path: Path) -> dict[str, Path]:
    """Two finished evaluations of five scorers beside exact match, whose figures differ."""
    rows = json.loads((evaluated / "summary.json").read_text())
    for number, label in enumerate(("a", "b"), 1):
        scores = {name: number / (3 + place) for place, name in enumerate(SCORERS)}
        changed = [{**row, **scores, "questions_per_s": 1.5 * number, "peak_mib": None} for row in rows]
        (tmp_path / label).mkdir()
        (tmp_path / label / "summary.json").write_text(json.dumps(changed))
    return {label: tmp_path / label for label in ("a", "b")}


def test_all_figures_are_averaged(folders):
    rows = [
        {"run": label, **row}
        for label, path in folders.items()
        for row in json.loads((path / "summary.json").read_text())
    ]
    means = means_of(rows, ["a", "b"])
    assert len(means) == len(rows) // 2
    for mean in means:
        members = [row for row in rows if (row["pruner"], row["budget"]) == (mean["pruner"], mean["budget"])]
        for name in (*SCORERS, "answer_accuracy", "keep_ratio", "evidence_recall", "prefill_ms", "questions_per_s"):
            values = [row[name] for row in members]
            assert mean[name] == pytest.approx(fmean(values), abs=1e-6), name
            assert mean[f"{name}_std"] == pytest.approx(stdev(values), abs=1e-6), name
        assert mean["peak_mib"] is None and mean["peak_mib_std"] is None
        assert not {"difference_p", "difference_ci95", "matched_std", "budget_std", "num_samples_std"} & mean.keys()


def test_scores_are_shown_and_rows_stay_whole(folders, micro, tmp_path):
    configs = dict.fromkeys(folders, micro.run / "config.yaml")
    console = Console(file=io.StringIO(), width=150)
    rows = join(folders, configs, tmp_path / "joint", console)
    printed, text = console.file.getvalue(), (tmp_path / "joint/report.md").read_text()
    assert "mean of 2" in printed and all(f"{name} %" in text for name in SCORERS)
    head, body = printed.split("split test, scores")
    for table in (head, body):
        assert len([line for line in table.splitlines() if line.startswith("\u2502")]) == len(rows)
    assert f"{100 * 1.5 / 3:.1f} \u00b1" in body and f"| {100 / 3:.1f} |" in text  # mean of 1/3 and 2/3, and the first
