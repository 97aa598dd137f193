"""Tables as files for other programs: CSV with every figure, LaTeX with the columns that a page has room for."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gp.eval.latex import document
from gp.eval.table import latex_table
from gp.runs.writing import write_text

Row = dict[str, Any]

CSV, LATEX = "summary.csv", "summary.tex"
ENDS = ("low", "high")


def write_tables(out: Path, rows: Sequence[Row]) -> None:
    """Writes `summary.csv` and `summary.tex` of the rows of `summary.json` into a folder."""
    write_text(out / CSV, as_csv(rows))
    of_splits: dict[str, list[Row]] = {}
    for row in rows:
        of_splits.setdefault(row["split"], []).append(row)
    write_text(out / LATEX, document([latex_table(of_split) for of_split in of_splits.values()]))


def as_csv(rows: Sequence[Row]) -> str:
    """Rows with all their keys, heads first: an interval is two columns, `NAME_low` and `NAME_high`; null is empty.

    Args:
        rows: flat, but for intervals [low, high]; keys that a row lacks are empty in its line.
    """
    flat = [_flat(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in flat for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Mapping[str, Any]) -> Row:
    flat: Row = {}
    for key, value in row.items():
        if key.endswith("_ci95"):
            flat |= {f"{key}_{end}": side for end, side in zip(ENDS, value or (None, None), strict=True)}
        else:
            flat[key] = value
    return flat
