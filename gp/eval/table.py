"""Rows of a summary as text: columns with units, in the terminal and in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gp.config.schema import SCORERS
from gp.pruners import NoPruner

Row = dict[str, Any]

JUDGE_SCORE, NUM_JUDGED = "judge_score", "num_judged"  # of rows whose answers a judge has scored
WIDTH_WITHOUT_TERMINAL = 150  # a log keeps whole rows
NUM_TEXT_COLUMNS = 2
LEGEND = (
    "Budget: asked share of visual entries in the KV cache, mean over layers (own: the method decides; as glimpse: for "
    "each prompt what glimpse kept). Cache: the realised share. Last layer: visual tokens kept to the end. Computed: "
    "visual tokens that the prefill worked on, mean over layers. KV total: entries of the cache, text included. "
    "Accuracy: exact match, with its 95 % bootstrap interval over questions; other scorers by their names. "
    "Agree: same answer as without pruning. Judge: mean score of the answers judged, missing ones left out. "
    "Times: pruned / un-pruned, below 1 is faster; decode time is per token. Peak: memory while a batch is prefilled "
    "and decoded, above what was in use before; KV: that batch's cache after prefill. n: questions."
)


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        name: its head.
        text: a row's cell.
        value: what the cell is sorted by; None sorts last.
    """

    name: str
    text: Callable[[Row], str]
    value: Callable[[Row], str | float | None]


def make_console() -> Console:
    """The terminal, or a log with lines long enough for the table."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)


def columns_of(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The columns of a split's table: `COLUMNS`, and behind the accuracy those of its rows' other scorers and judge."""
    scored = [_figure(f"{name} %", name, percent) for name in SCORERS if name in rows[0]]
    scored += JUDGED if JUDGE_SCORE in rows[0] else []
    place = 1 + next(place for place, column in enumerate(COLUMNS) if column.name.startswith("accuracy"))
    return (*COLUMNS[:place], *scored, *COLUMNS[place:])


def cells(row: Row, columns: Sequence[Column] | None = None) -> list[str]:
    """The cells of a row; None: of `columns_of` it alone."""
    return [column.text(row) for column in columns or columns_of([row])]


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Prints one table per split."""
    for split in dict.fromkeys(row["split"] for row in rows):
        of_split = [row for row in rows if row["split"] == split]
        table = Table(title=Text(f"split {split}"), title_justify="left", padding=(0, 1, 0, 0))
        for index, column in enumerate(columns_of(of_split)):
            widest = max(len(column.text(row)) for row in of_split)
            head = textwrap.fill(column.name, max(widest, max(map(len, column.name.split()))))  # it widens no column
            is_text = index < NUM_TEXT_COLUMNS
            table.add_column(head, justify="left" if is_text else "right", no_wrap=is_text)
        for row in of_split:
            table.add_row(*map(Text, cells(row)))  # names may hold what rich takes for markup
        console.print(table)


def markdown_table(rows: Sequence[Row]) -> str:
    """The same as a Markdown table, of one split."""
    heads = [column.name for column in columns_of(rows)]
    rule = ["---"] * NUM_TEXT_COLUMNS + ["---:"] * (len(heads) - NUM_TEXT_COLUMNS)
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *map(cells, rows)))


def budget_text(row: Row) -> str:
    """Budget that was asked for, in words."""
    if row["pruner"] == NoPruner.name:
        return "-"
    if row["budget"] is not None:
        return f"{100 * row['budget']:g} %"
    return "as glimpse" if row["matched"] else "own"


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def mib(value: float) -> str:
    """Three digits or more, as few places as that takes."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def accuracy_text(row: Row) -> str:
    """`98.4 [97.6, 99.1]`, in percent."""
    low, high = row["answer_accuracy_ci95"]
    return f"{percent(row['answer_accuracy'])} [{percent(low)}, {percent(high)}]"


def _figure(name: str, key: str, show: Callable[[Any], str]) -> Column:
    """A column of one key; None, which the system could not tell, is shown as a dash."""
    return Column(name, lambda row: "-" if row[key] is None else show(row[key]), lambda row: row[key])


COLUMNS = (
    Column("method", lambda row: row["pruner"], lambda row: row["pruner"]),
    Column("budget", budget_text, lambda row: row["budget"]),
    _figure("cache %", "cache_ratio", percent),
    _figure("last layer %", "keep_ratio", percent),
    _figure("computed %", "compute_ratio", percent),
    _figure("KV total %", "kv_keep_ratio", percent),
    Column("accuracy % [95 % CI]", accuracy_text, lambda row: row["answer_accuracy"]),
    _figure("agree %", "agreement", percent),
    _figure("mask IoU", "mask_iou", "{:.3f}".format),
    _figure("mask recall", "mask_recall", "{:.3f}".format),
    _figure("prefill time", "prefill_ratio", "{:.2f}".format),
    _figure("decode time", "decode_ratio", "{:.2f}".format),
    _figure("peak MiB", "peak_mib", mib),
    _figure("KV MiB", "kv_cache_mib", mib),
    _figure("n", "num_samples", str),
)
JUDGED = [
    _figure("judge %", JUDGE_SCORE, percent),
    Column("judged", lambda row: f"{row[NUM_JUDGED]} of {row['num_samples']}", lambda row: row[NUM_JUDGED]),
]
