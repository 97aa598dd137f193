"""Kinds of questions: groups by hand, figures against the result lines of an evaluation."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

import evaluate
from gp.eval.breakdown import break_down, group_questions, lines_of
from gp.eval.plan import UNPRUNED, Method
from gp.eval.results import Result
from tests.support.eval_results import lines_of as result_lines
from tests.support.eval_results import rows_of

HALF = Method("random", 0.5)


def result(key: str, evidence: int = 1, num_visual: int = 100, said: str = "red", source: str = "x", images: int = 1):
    sample = (key, 0, "gqa", source, "a.jpg", "what ?", "red")
    counts = (2, said == "red", num_visual, num_visual // 2, 6.0, 4.0, evidence, 0, 0, 10.0, 20, 0.1, 0.2)
    return Result(*sample, said, *counts, num_images=images)


def test_groups_hold_their_lower_edge():
    results = [result(str(share), evidence=share) for share in (0, 1, 4, 5, 19, 20, 100)]
    assert group_questions(results) == {
        "evidence": {
            "below 1 %": ["0"],
            "1 to 5 %": ["1", "4"],
            "5 to 20 %": ["5", "19"],
            "20 % and more": ["20", "100"],
        }
    }
    sizes = [result(str(size), evidence=size, num_visual=size) for size in (255, 256, 4096, 5000)]
    assert group_questions(sizes) == {
        "visual tokens": {"below 256": ["255"], "256 to 1024": ["256"], "4096 and more": ["4096", "5000"]}
    }


def test_images_and_categories():
    results = [result("a", images=1, source="colour/1"), result("b", images=3, source="place/1")]
    results += [result("c", images=3, source="placement/2")]
    assert group_questions(results) == {"images": {"1": ["a"], "3": ["b", "c"]}}
    found = group_questions(results, ["place", "colour"])
    assert found["category"] == {"place": ["b"], "colour": ["a"], "other": ["c"]}
    assert list(found["category"]) == ["place", "colour", "other"]  # as they were asked for


def test_figures_of_each_group_by_hand():
    unpruned = {str(n): result(str(n), evidence=1 + 9 * (n % 2)) for n in range(8)}
    said = {str(n): "blue" if n in (1, 3, 4) else "red" for n in range(8)}
    pruned = {key: replace(one, prediction=said[key], num_kept=25) for key, one in unpruned.items()}
    rows = break_down("test", {UNPRUNED: unpruned, HALF: {**pruned, "only here": pruned["0"]}}, "exact_match")
    assert [(row["group"], row["pruner"], row["score"]) for row in rows] == [
        ("1 to 5 %", "none", 1.0), ("1 to 5 %", "random", 0.75),
        ("5 to 20 %", "none", 1.0), ("5 to 20 %", "random", 0.5),
    ]  # fmt: skip
    last = rows[-1]
    assert (last["num_samples"], last["keep_ratio"], last["agreement"], last["difference"]) == (4, 0.25, 0.5, -0.5)
    assert last["difference_ci95"][0] <= -0.5 <= last["difference_ci95"][1] and 0 < last["difference_p"] <= 1
    assert lines_of(rows) == [
        [
            ["evidence", "n", "none", "random 50 %"],
            ["1 to 5 %", "4", "100.0 (50.0)", "75.0 (25.0)"],
            ["5 to 20 %", "4", "100.0 (50.0)", "50.0 (25.0)"],
        ]
    ]


def test_groups_of_an_evaluation_add_up(evaluated: Path):
    """Over the groups of any kind the questions and their right answers are those of the row."""
    groups = json.loads((evaluated / "breakdown.json").read_text())
    assert groups
    for (pruner, budget), row in rows_of(evaluated).items():
        members = [one for one in groups if (one["pruner"], one["budget"], one["by"]) == (pruner, budget, "evidence")]
        assert sum(one["num_samples"] for one in members) == row["num_samples"]
        right = sum(one["score"] * one["num_samples"] for one in members)
        assert right == pytest.approx(row["answer_accuracy"] * row["num_samples"], abs=1e-4)
    with (evaluated / "breakdown.csv").open(newline="") as file:
        assert [line["group"] for line in csv.DictReader(file)] == [one["group"] for one in groups]


def test_categories_of_a_set(micro, tmp_path, capsys):
    """All source ids of these shards are s0: one category is no break-down, and none of them falls out."""
    bench = tmp_path / "own.yaml"
    options = "suffix: '', categories: [s, t]"
    bench.write_text(
        f"data:\n  test:\n    one: [{micro.shards[0]}]\neval:\n  splits: [one]\n  sets:\n    one: {{{options}}}\n"
    )
    arguments = [f"ckpt={micro.ckpt}", f"bench={bench}", "pruner=none", "eval.costs=false", "eval.overlays=0"]
    assert evaluate.main([*arguments, f"out={tmp_path / 'out'}"]) == 0
    groups = json.loads((tmp_path / "out/breakdown.json").read_text())
    assert "category" not in {one["by"] for one in groups}
    bench.write_text(bench.read_text().replace("[s, t]", "[s, s]"))
    assert evaluate.main([*arguments, f"out={tmp_path / 'out2'}"]) == 2
    assert "eval.sets.one.categories" in capsys.readouterr().err


def test_evidence_is_that_of_the_unpruned_row(evaluated: Path):
    lines = result_lines(evaluated, "none-own")
    small = [key for key, line in lines.items() if 5 <= 100 * (line["tp"] + line["fn"]) / line["num_visual"] < 20]
    groups = json.loads((evaluated / "breakdown.json").read_text())
    glimpse = result_lines(evaluated, "glimpse-own")
    (row,) = [
        one for one in groups if (one["group"], one["pruner"], one["budget"]) == ("5 to 20 %", "glimpse", None)
    ] or [{"num_samples": 0, "keep_ratio": 0}]
    assert row["num_samples"] == len(small)
    if small:
        kept = fmean(glimpse[key]["num_kept"] / glimpse[key]["num_visual"] for key in small)
        assert row["keep_ratio"] == pytest.approx(kept, abs=1e-6)
