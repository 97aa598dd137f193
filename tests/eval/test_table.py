"""Cells of the table, and the same rows in the terminal and in Markdown."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from gp.eval.table import (
    HIGH,
    LOW,
    TERMINAL,
    Column,
    best_rows,
    budget_text,
    cells,
    columns_of,
    difference_text,
    latex_table,
    markdown_table,
    mib,
    print_table,
)


@pytest.mark.parametrize(
    ("pruner", "budget", "matched", "text"),
    [("none", None, False, "-"), ("random", 0.111, False, "11.1 %"), ("random", None, True, "as glimpse"),
     ("glimpse", None, False, "own")],
)  # fmt: skip
def test_budgets_in_words(pruner, budget, matched, text):
    assert budget_text({"pruner": pruner, "budget": budget, "matched": matched}) == text


def test_memory_has_three_digits():
    assert [mib(value) for value in (0.123, 9.87, 45.67, 1234.5)] == ["0.12", "9.87", "45.7", "1234"]


@pytest.mark.parametrize(
    ("best", "numbers"),
    [(HIGH, [2, 3, 5]), (LOW, [4, 6]), ("", [])],
)
def test_the_best_of_each_budget_is_marked(best, numbers):
    """`none` and `oracle` do not compete, ties share, a row that is alone at its budget or has no value is not best."""
    rows = [
        {"pruner": pruner, "budget": budget, "value": value}
        for pruner, budget, value in (
            ("none", None, 9), ("oracle", None, 0), ("glimpse", None, 5), ("glimpse", 0.1, 7), ("random", None, 1),
            ("fastv", 0.1, 7), ("random", 0.1, 6), ("divprune", 0.1, None), ("fastv", 0.2, 99),
        )
    ]  # fmt: skip
    column = Column("value", lambda row: str(row["value"]), lambda row: row["value"], best=best)
    assert sorted(best_rows(rows, column)) == numbers


def test_every_row_is_in_the_terminal_and_in_markdown(evaluated: Path):
    rows = json.loads((evaluated / "summary.json").read_text())
    rows[0]["peak_mib"] = None  # what the system could not tell
    console = Console(file=io.StringIO(), width=200)
    print_table(rows, console)
    printed, (head, rule, *lines) = console.file.getvalue(), markdown_table(rows).splitlines()
    columns = columns_of(rows)
    assert head.count("|") == rule.count("|") == len(columns) + 1 and len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        assert [cell.strip() for cell in line.strip("|").split(" | ")] == cells(row)
        assert all(cell in printed for cell in cells(row, columns_of(rows, TERMINAL)))
    assert cells(rows[0])[[column.name for column in columns].index("peak MiB")] == "-"


def test_names_with_brackets_are_shown_as_they_are(evaluated: Path):
    """rich takes some for styles, and would drop them."""
    rows = json.loads((evaluated / "summary.json").read_text())
    console = Console(file=io.StringIO(), width=200)
    print_table([{**row, "split": "a [bold]x[/bold] [y]"} for row in rows], console)
    assert "split a [bold]x[/bold] [y]" in console.file.getvalue()


def test_differences_in_points():
    row = {"difference": -0.0234, "difference_ci95": [-0.05, -0.001]}
    assert (difference_text(row), difference_text(row, short=True)) == ("-2.3 [-5.0, -0.1]", "-2.3*")
    row = {"difference": 0.0001, "difference_ci95": [-0.01, 0.02]}
    assert (difference_text(row), difference_text(row, short=True)) == ("0.0 [-1.0, +2.0]", "0.0")
    assert difference_text({"difference": None, "difference_ci95": None}) == "-"


def test_many_scorers_leave_whole_rows_in_a_log(evaluated: Path):
    """They stand in a table of their own; each row of either is one line of 150 letters."""
    scorers = ("anls", "vqa_accuracy", "relaxed_accuracy", "choice", "containment")
    rows = json.loads((evaluated / "summary.json").read_text())
    rows = [{**row, **{name: 0.5 + number / 8 for number, name in enumerate(scorers)}} for row in rows]
    console = Console(file=io.StringIO(), width=150)
    print_table(rows, console)
    main, scores = console.file.getvalue().split("split test, scores")
    for table in (main, scores):
        bodies = [line for line in table.splitlines() if line.startswith("\u2502")]
        assert len(bodies) == len(rows), table
        assert "\u2026" not in table
    assert all(name in scores for name in scorers)


def test_the_table_for_a_paper(evaluated: Path):
    rows = json.loads((evaluated / "summary.json").read_text())
    text = latex_table([{**row, "split": "a_b & c"} for row in rows])
    assert r"\caption{Split a\_b \& c, 12 questions.}" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(rows) and all(line.endswith(r" \\") for line in body)
    columns = text[text.index("{tabular}{") + len("{tabular}{") :].split("}")[0]
    assert {line.count(" & ") + 1 for line in body} == {len(columns)}
