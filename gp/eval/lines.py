"""Tables of finished text, heads first: in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

Lines = Sequence[Sequence[str]]


def print_lines(lines: Lines, title: str, console: Console, num_text_columns: int, last_apart: bool = False) -> None:
    """Prints a table.

    Args:
        lines: of cells, the heads first.
        title: above it.
        console: the terminal.
        num_text_columns: the first ones, aligned left and never broken; the others right.
        last_apart: whether a rule parts the last line from the others.
    """
    table = Table(title=Text(title), title_justify="left", padding=(0, 1, 0, 0))
    for index, head in enumerate(lines[0]):
        is_text = index < num_text_columns
        table.add_column(Text(head), justify="left" if is_text else "right", no_wrap=is_text)
    for line in lines[1:]:
        table.add_row(*map(Text, line), end_section=last_apart and line is lines[-2])
    console.print(table)


def markdown(lines: Lines, num_text_columns: int) -> str:
    """The same as a Markdown table."""
    rule = ["---"] * num_text_columns + ["---:"] * (len(lines[0]) - num_text_columns)
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))
