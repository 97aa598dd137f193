"""Tables as files: what CSV readers and LaTeX get is what the summary says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from gp.eval.exports import as_csv


def test_csv_has_every_figure_of_the_summary(evaluated: Path):
    rows = json.loads((evaluated / "summary.json").read_text())
    with (evaluated / "summary.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        for key, value in row.items():
            if key.endswith("_ci95"):
                got = [line.pop(f"{key}_{end}") for end in ("low", "high")]
                assert got == ["" if value is None else str(side) for side in value or (None, None)]
            else:
                assert line.pop(key) == ("" if value is None else str(value)), key
        assert line == {}


def test_names_and_keys_that_some_rows_lack():
    text = as_csv([{"split": 'a, "b"\nc', "x": 1}, {"split": "d", "y": 2}])
    assert list(csv.DictReader(text.splitlines(keepends=True))) == [
        {"split": 'a, "b"\nc', "x": "1", "y": ""},
        {"split": "d", "x": "", "y": "2"},
    ]


def test_latex_beside_the_summary(evaluated: Path):
    rows = json.loads((evaluated / "summary.json").read_text())
    text = (evaluated / "summary.tex").read_text()
    assert text.startswith("% needs") and text.count(r"\begin{tabular}") == 1
    for row in rows:
        assert f"{100 * row['answer_accuracy']:.1f} [" in text
    assert r"11.1 \%" in text or r"50 \%" in text  # budgets, escaped
