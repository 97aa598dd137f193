"""Rows of a summary as text: cells with units, in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from gp.pruners import NoPruner

WIDTH_WITHOUT_TERMINAL = 150  # a log keeps whole rows
COLUMNS = (
    "method",
    "budget",
    "kept %",
    "accuracy %",
    "un-pruned %",
    "agreement %",
    "mask IoU",
    "mask recall",
    "prefill time",
    "decode time",
    "KV cache %",
    "n",
)
LEGEND = (
    "Budget: asked share of visual tokens kept (own: the method decides; as glimpse: as many of each prompt as glimpse "
    "kept). Accuracy: exact match, with its standard error. Agreement: same answer as without pruning. Times: pruned / "
    "un-pruned, below 1 is faster; decode time is per token."
)


def make_console() -> Console:
    """The terminal, or a log with lines long enough for the table."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)


def cells(row: dict[str, Any]) -> list[str]:
    """The cells of `COLUMNS`."""
    return [
        row["pruner"],
        _budget(row),
        _percent(row["keep_ratio"]),
        f"{_percent(row['answer_accuracy'])} ± {_percent(row['answer_accuracy_se'])}",
        _percent(row["answer_accuracy_unpruned"]),
        _percent(row["agreement"]),
        f"{row['mask_iou']:.3f}",
        f"{row['mask_recall']:.3f}",
        f"{row['prefill_ratio']:.2f}",
        f"{row['decode_ratio']:.2f}",
        _percent(row["kv_keep_ratio"]),
        str(row["num_samples"]),
    ]


def print_table(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """One table a split."""
    for split in dict.fromkeys(row["split"] for row in rows):
        table = Table(title=f"split {split}", title_justify="left")
        for index, name in enumerate(COLUMNS):
            table.add_column(name, justify="left" if index < 2 else "right", no_wrap=index < 2)
        for row in rows:
            if row["split"] == split:
                table.add_row(*cells(row))
        console.print(table)


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """The same as a Markdown table."""
    rule = ["---", "---", *["---:"] * (len(COLUMNS) - 2)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (COLUMNS, rule, *map(cells, rows)))


def _budget(row: dict[str, Any]) -> str:
    if row["pruner"] == NoPruner.name:
        return "-"
    if row["budget"] is not None:
        return f"{100 * row['budget']:g} %"
    return "as glimpse" if row["matched"] else "own"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
