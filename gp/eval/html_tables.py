"""Tables of the HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from gp.eval import table
from gp.eval.html_page import wide

SORTING = "A column's head sorts by it, once more backwards. Bold: best of a budget; none and oracle do not compete."


def rows_table(rows: Sequence[dict[str, Any]]) -> str:
    """The table of one split, to be sorted."""
    columns = table.columns_of(rows)
    kinds = ["text" if index < table.NUM_TEXT_COLUMNS else "number" for index in range(len(columns))]
    heads = "".join(
        f'<th scope="col" class="{kind}"><button type="button">{escape(column.name)}</button></th>'
        for kind, column in zip(kinds, columns)
    )
    best = [table.best_rows(rows, column) for column in columns]
    lines = (
        "".join(_cell(kind, column, row, number in winners) for kind, column, winners in zip(kinds, columns, best))
        for number, row in enumerate(rows)
    )
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    found = f'<table class="rows"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    return wide(found, f"Figures of split {rows[0]['split']}")


def _cell(kind: str, column: table.Column, row: dict[str, Any], is_best: bool) -> str:
    value = column.value(row)
    data = "" if value is None else f' data-value="{escape(str(value))}"'
    text = escape(column.text(row))
    return f'<td class="{kind}"{data}>{f"<strong>{text}</strong>" if is_best else text}</td>'


def plain_table(lines: Sequence[Sequence[str]], label: str) -> str:
    """A table of finished text, heads first, in the order that it has; `label` says what it is."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in lines[0])
    body = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines[1:])
    return wide(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", label)
