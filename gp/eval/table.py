"""Rows of a summary as text: columns with units, in the terminal, in Markdown and in LaTeX."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gp.config.schema import SCORERS
from gp.eval.latex import booktabs
from gp.pruners import NoPruner, OraclePruner

Row = dict[str, Any]

JUDGE_SCORE, NUM_JUDGED = "judge_score", "num_judged"  # of rows whose answers a judge has scored
WIDTH_WITHOUT_TERMINAL = 150  # a log keeps whole rows
NUM_TEXT_COLUMNS = 2
TERMINAL, REPORT, PAPER = "terminal", "report", "paper"  # where a column is shown: by how wide the place is
EVERYWHERE = (TERMINAL, REPORT, PAPER)
HIGH, LOW = "high", "low"
LEGEND = (
    "Budget: asked share of visual entries in the KV cache, mean over layers (own: the method decides; as glimpse: for "
    "each prompt what glimpse kept). Cache: the realised share. Last layer: visual tokens kept to the end. Computed: "
    "visual tokens that the prefill worked on, mean over layers. KV total: entries of the cache, text included. "
    "Accuracy: exact match, with its 95 % bootstrap interval over questions; other scorers by their names. "
    "Agree: same answer as without pruning. Judge: mean score of the answers judged, missing ones left out. "
    "Against a row: the split's score less that row's, in points, with the 95 % "
    "interval of a paired bootstrap over questions, and its p; a star stands where the interval leaves out 0. "
    "Times: pruned / un-pruned, below 1 is faster; decode time is per token. Prefill ms: of a batch; token ms: of a "
    "step that decodes a token of each of its questions; questions/s: of both, with 8 tokens an answer. Peak: memory "
    "while a batch is prefilled and decoded, above what was in use before; KV: that batch's cache after prefill. "
    "n: questions."
)


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        name: its head.
        text: a row's cell.
        value: what the cell is sorted by; None sorts last.
        places: where it is shown.
        best: HIGH or LOW, which value is the best; empty: neither.
    """

    name: str
    text: Callable[[Row], str]
    value: Callable[[Row], str | float | None]
    places: Sequence[str] = (TERMINAL, REPORT)
    best: str = ""


def make_console() -> Console:
    """The terminal, or a log with lines long enough for the table."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)


def columns_of(rows: Sequence[Row], place: str = REPORT) -> list[Column]:
    """The columns of a split's table: `COLUMNS`; behind the accuracy those of other scorers, a judge, the comparison.

    Args:
        rows: of the split.
        place: where the table is shown.
    """
    behind = 1 + next(number for number, column in enumerate(COLUMNS) if column.name.startswith("accuracy"))
    judged = JUDGED if JUDGE_SCORE in rows[0] else ()
    columns = [*COLUMNS[:behind], *scored_columns(rows), *judged, *_compared_columns(rows), *COLUMNS[behind:]]
    return [column for column in columns if place in column.places]


def best_rows(rows: Sequence[Row], column: Column) -> list[int]:
    """Numbers of the rows that are best in a column among those of their budget; empty where all are the same.

    `none` and `oracle` do not compete.
    """
    best: list[int] = []
    for budget in dict.fromkeys(row["budget"] for row in rows):
        values = {
            number: float(value)
            for number, row in enumerate(rows)
            if row["budget"] == budget and row["pruner"] not in (NoPruner.name, OraclePruner.name)
            if (value := column.value(row)) is not None and column.best
        }
        if len({*values.values()}) > 1:
            top = (max if column.best == HIGH else min)(values.values())
            best += [number for number, value in values.items() if value == top]
    return best


def scored_columns(rows: Sequence[Row]) -> list[Column]:
    """One column for every scorer other than exact match; in the terminal they are a table of their own."""
    return [_figure(f"{name} %", name, percent, (REPORT, PAPER), HIGH) for name in SCORERS if name in rows[0]]


def _compared_columns(rows: Sequence[Row]) -> list[Column]:
    """How rows compare with their reference: in short for the terminal, elsewhere with interval and p."""
    name = f"against {reference_name(rows[0])}"
    return [
        Column(name, lambda row: difference_text(row, short=True), lambda row: row["difference"], (TERMINAL,)),
        Column(f"{name} [95 % CI]", difference_text, lambda row: row["difference"], (REPORT, PAPER)),
        _figure("p", "difference_p", "{:.3f}".format, (REPORT, PAPER)),
    ]


def cells(row: Row, columns: Sequence[Column] | None = None) -> list[str]:
    """The cells of a row; None: of `columns_of` it alone."""
    return [column.text(row) for column in columns or columns_of([row])]


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Prints one table per split."""
    for split in dict.fromkeys(row["split"] for row in rows):
        of_split = [row for row in rows if row["split"] == split]
        console.print(_terminal_table(f"split {split}", of_split, columns_of(of_split, TERMINAL)))
        if scored := scored_columns(of_split):
            console.print(_terminal_table(f"split {split}, scores", of_split, [*COLUMNS[:NUM_TEXT_COLUMNS], *scored]))


def _terminal_table(title: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    table = Table(title=Text(title), title_justify="left", padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        widest = max(len(column.text(row)) for row in rows)
        head = textwrap.fill(column.name, max(widest, max(map(len, column.name.split()))))  # it widens no column
        is_text = index < NUM_TEXT_COLUMNS
        table.add_column(head, justify="left" if is_text else "right", no_wrap=is_text)
    for row in rows:
        table.add_row(*map(Text, cells(row, columns)))  # names may hold what rich takes for markup
    return table


def markdown_table(rows: Sequence[Row]) -> str:
    """The same as a Markdown table, of one split."""
    columns = columns_of(rows)
    heads = [column.name for column in columns]
    rule = ["---"] * NUM_TEXT_COLUMNS + ["---:"] * (len(heads) - NUM_TEXT_COLUMNS)
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *(cells(row, columns) for row in rows)))


def latex_table(rows: Sequence[Row]) -> str:
    """The columns that a paper has room for, as a LaTeX table, of one split."""
    columns = columns_of(rows, PAPER)
    caption = f"Split {rows[0]['split']}, {rows[0]['num_samples']} questions."
    return booktabs([column.name for column in columns], [cells(row, columns) for row in rows], caption, 2)


def budget_text(row: Row) -> str:
    """Budget that was asked for, in words."""
    if row["pruner"] == NoPruner.name:
        return "-"
    if row["budget"] is not None:
        return f"{100 * row['budget']:g} %"
    if row.get("threshold") is not None:
        return f"p > {row['threshold']:g}"
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


def vip_ece(rows: Sequence[Row]) -> str:
    """`ECE 0.0123`, of the row that has one."""
    return "".join(f"ECE {row['vip_ece']:.4f}." for row in rows if row["vip_ece"] is not None)


def reference_name(row: Row) -> str:
    """The row that one is compared with, as users name it: `none`, `random-0.111`."""
    return row["reference"].removesuffix("-own")


def difference_text(row: Row, short: bool = False) -> str:
    """`-0.8 [-1.4, -0.2]`, in points; short: `-0.8*`, with a star where the interval leaves out 0."""
    if row["difference"] is None:
        return "-"
    low, high = row["difference_ci95"]
    if short:
        return points(row["difference"]) + ("*" if low > 0 or high < 0 else "")
    return f"{points(row['difference'])} [{points(low)}, {points(high)}]"


def points(value: float) -> str:
    """Percentage points, signed; `0.0` has no sign."""
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text


def _figure(
    name: str, key: str, show: Callable[[Any], str], places: Sequence[str] = (TERMINAL, REPORT), best: str = ""
) -> Column:
    """A column of one key; None, which the system could not tell, is shown as a dash."""
    return Column(name, lambda row: "-" if row[key] is None else show(row[key]), lambda row: row[key], places, best)


COLUMNS = (
    Column("method", lambda row: row["pruner"], lambda row: row["pruner"], EVERYWHERE),
    Column("budget", budget_text, lambda row: row["budget"], EVERYWHERE),
    _figure("cache %", "cache_ratio", percent, EVERYWHERE),
    _figure("last layer %", "keep_ratio", percent),
    _figure("computed %", "compute_ratio", percent),
    _figure("KV total %", "kv_keep_ratio", percent),
    Column("accuracy % [95 % CI]", accuracy_text, lambda row: row["answer_accuracy"], EVERYWHERE, HIGH),
    _figure("agree %", "agreement", percent, EVERYWHERE, HIGH),
    _figure("mask IoU", "mask_iou", "{:.3f}".format, best=HIGH),
    _figure("mask recall", "mask_recall", "{:.3f}".format, best=HIGH),
    _figure("prefill time", "prefill_ratio", "{:.2f}".format, EVERYWHERE, LOW),
    _figure("decode time", "decode_ratio", "{:.2f}".format, best=LOW),
    _figure("prefill ms", "prefill_ms", "{:.1f}".format, (REPORT,), LOW),
    _figure("token ms", "decode_ms", "{:.2f}".format, (REPORT,), LOW),
    _figure("questions/s", "questions_per_s", "{:.2f}".format, (REPORT, PAPER), HIGH),
    _figure("peak MiB", "peak_mib", mib, best=LOW),
    _figure("KV MiB", "kv_cache_mib", mib),
    _figure("n", "num_samples", str),
)
JUDGED = [
    _figure("judge %", JUDGE_SCORE, percent, best=HIGH),
    Column("judged", lambda row: f"{row[NUM_JUDGED]} of {row['num_samples']}", lambda row: row[NUM_JUDGED]),
]
