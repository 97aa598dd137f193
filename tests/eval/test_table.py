"""Cells of the table, and the same rows in the terminal and in Markdown."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from gp.eval.table import COLUMNS, budget_text, cells, markdown_table, mib, print_table


@pytest.mark.parametrize(
    ("pruner", "budget", "matched", "text"),
    [("none", None, False, "-"), ("random", 0.111, False, "11.1 %"), ("random", None, True, "as glimpse"),
     ("glimpse", None, False, "own")],
)  # fmt: skip
def test_budgets_in_words(pruner, budget, matched, text):
    assert budget_text({"pruner": pruner, "budget": budget, "matched": matched}) == text


def test_memory_has_three_digits():
    assert [mib(value) for value in (0.123, 9.87, 45.67, 1234.5)] == ["0.12", "9.87", "45.7", "1234"]


def test_every_row_is_in_the_terminal_and_in_markdown(evaluated: Path):
    rows = json.loads((evaluated / "summary.json").read_text())
    rows[0]["peak_mib"] = None  # what the system could not tell
    console = Console(file=io.StringIO(), width=200)
    print_table(rows, console)
    printed, (head, rule, *lines) = console.file.getvalue(), markdown_table(rows).splitlines()
    assert head.count("|") == rule.count("|") == len(COLUMNS) + 1 and len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        assert [cell.strip() for cell in line.strip("|").split(" | ")] == cells(row)
        assert all(cell in printed for cell in cells(row))
    assert cells(rows[0])[[column.name for column in COLUMNS].index("peak MiB")] == "-"


def test_names_with_brackets_are_shown_as_they_are(evaluated: Path):
    """rich takes some for styles, and would drop them."""
    rows = json.loads((evaluated / "summary.json").read_text())
    console = Console(file=io.StringIO(), width=200)
    print_table([{**row, "split": "a [bold]x[/bold] [y]"} for row in rows], console)
    assert "split a [bold]x[/bold] [y]" in console.file.getvalue()
