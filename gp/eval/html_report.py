"""The report as one HTML file that needs nothing else: tables that can be sorted, figures and pictures inside."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from gp.eval import breakdown, figures, judged, table
from gp.eval.gallery import LEGEND as GALLERY_LEGEND
from gp.eval.gallery import Failures, evidence_lost
from gp.eval.overlays import LEGEND as OVERLAY_LEGEND
from gp.eval.overlays import Example, Painted
from gp.eval.renewing import marked
from gp.eval.report import EvalReport, Section
from gp.eval.results import Result
from gp.eval.sets_table import LEGEND as SETS_LEGEND
from gp.eval.svg import inline_svg
from gp.runs.writing import write_text

FILE = "report.html"
PICTURE_PX = 320  # longer side of an example's picture
JPEG_QUALITY = 85

# nothing may be loaded from anywhere
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 96rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .5rem; text-align: right }
th { cursor: pointer; vertical-align: bottom }
th.text, td.text { text-align: left }
svg { max-width: 60rem; width: 100%; height: auto }
table td:first-child, table th:first-child { text-align: left }
.wide { overflow-x: auto }
.wide svg { min-width: 34rem }
.small svg { max-width: 30rem }
summary { cursor: pointer; margin: .5rem 0 }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; width: 14rem }
figure img { width: 100% }
figcaption, .legend { color: #555; font-size: 13px }
code, pre { background: #f5f5f5; overflow-x: auto }
code { overflow-wrap: anywhere }
"""
# cells without a value come last in both directions
SCRIPT = """
for (const head of document.querySelectorAll("table.rows th")) head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], column = head.cellIndex;
  const sign = head.dataset.sign = head.dataset.sign === "1" ? -1 : 1;
  const key = row => row.cells[column].dataset.value ?? "";
  const compare = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
  body.append(...[...body.rows].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    return a === "" || b === "" ? (a === "") - (b === "") : sign * compare(a, b);
  }));
});
"""


def write_html(out: Path, report: EvalReport) -> Path:
    """Writes `report.html` into the folder that holds the examples' pictures; returns its path."""
    title = escape(f"Evaluation of {report.name}")
    facts = "".join(f"<li>{escape(name)}: <code>{escape(value)}</code></li>" for name, value in report.facts.items())
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style></head><body>',
        f"<h1>{title}</h1><ul>{facts}</ul>",
        _left_out(report),
        _sets(report),
        marked(judged.PART, judge_part(report.judged, report.judge)),
        *(_section(out, section) for section in report.sections),
        f"<h2>Settings</h2><pre>{escape(json.dumps(report.settings, indent=1))}</pre>",
        f"<script>{SCRIPT}</script></body></html>",
    ]
    path = out / FILE
    write_text(path, "\n".join(parts) + "\n")
    return path


def _left_out(report: EvalReport) -> str:
    if not report.left_out:
        return ""
    lines = (f"<li><code>{escape(one.method.label)}</code>: {escape(one.reason)}</li>" for one in report.left_out)
    return f"<h2>Left out</h2><ul>{''.join(lines)}</ul>"


def _sets(report: EvalReport) -> str:
    """The table of several sets; empty where there is one."""
    if not report.sets:
        return ""
    return f"<h2>Sets</h2>{_plain_table(report.sets)}{_legend(SETS_LEGEND)}"


def _plain_table(lines: Sequence[Sequence[str]]) -> str:
    """A table of finished text, heads first, in the order that it has."""
    head = "".join(f"<th>{escape(name)}</th>" for name in lines[0])
    body = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines[1:])
    table_of_lines = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return _wide(table_of_lines)


def _wide(content: str) -> str:
    """What scrolls by itself where the page is narrower."""
    return f'<div class="wide">{content}</div>'


def judge_part(lines: Sequence[Sequence[str]], caption: str) -> str:
    """What a judge says: the table of several sets, and who judged; empty if nobody did."""
    if not caption:
        return ""
    return f"<h2>Judge</h2>{_plain_table(lines) + _legend(judged.LEGEND) if lines else ''}{_legend(caption)}"


def _section(out: Path, section: Section) -> str:
    parts = [f"<h2>Split <code>{escape(section.split)}</code></h2>", marked(section.split, rows_table(section.rows))]
    parts += [_legend("Click on the head of a column to sort by it."), _legend(table.LEGEND)]
    parts += [_wide(inline_svg(*figures.draw(section.rows), name=section.split)), _legend(figures.LEGEND)]
    if drawn := figures.draw_speed(section.rows):
        parts += [_wide(inline_svg(*drawn, name=f"{section.split}-speed")), _legend(figures.SPEED_LEGEND)]
    if section.calibration:
        drawn = figures.draw_reliability(section.calibration)
        parts += [f'<div class="small">{inline_svg(*drawn, name=f"{section.split}-reliability")}</div>']
        parts += [_legend(f"{figures.RELIABILITY_LEGEND} {table.vip_ece(section.rows)}")]
    if section.groups:
        tables = map(_plain_table, section.groups)
        parts += ["<h3>Kinds of questions</h3>", *tables, _legend(breakdown.LEGEND)]
    if section.examples:
        parts += ["<h3>Examples</h3>", _legend(OVERLAY_LEGEND), *(_example(out, one) for one in section.examples)]
    if section.failures:
        parts += ["<h3>Answers that pruning changed</h3>", _legend(GALLERY_LEGEND)]
        parts += [_failures(out, one) for one in section.failures]
    return "\n".join(parts)


def _failures(out: Path, one: Failures) -> str:
    """How much a row changed, and behind a click the questions shown."""
    head = f"{escape(one.method.label)}: {one.num_changed} of {one.num_samples} answers changed"
    if not one.shown:
        return f"<p>{head}</p>"
    return f"<details open><summary>{head}</summary>\n{''.join(_failure(out, one) for one in one.shown)}</details>"


def _failure(out: Path, example: Example) -> str:
    sample, (painted,) = example.sample, example.painted
    lost = table.percent(evidence_lost(painted.result))
    lines = [
        f"<b>{escape(sample.question)}</b> Answer: {escape(sample.answer)}",
        f"un-pruned: {_answered(example.unpruned)}",
        f"pruned: {_answered(painted.result)}",
        f"{lost} % of the evidence lost, {painted.result.num_kept} of {painted.result.num_visual} tokens kept",
    ]
    return _figure(out, painted, "<br>".join(lines))


def rows_table(rows: Sequence[dict[str, Any]]) -> str:
    """The table of one split, to be sorted."""
    columns = table.columns_of(rows)
    kinds = ["text" if index < table.NUM_TEXT_COLUMNS else "number" for index in range(len(columns))]
    heads = "".join(f'<th class="{kind}">{escape(c.name)}</th>' for kind, c in zip(kinds, columns))
    lines = ("".join(_cell(kind, column, row) for kind, column in zip(kinds, columns)) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return _wide(f'<table class="rows"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>')


def _cell(kind: str, column: table.Column, row: dict[str, Any]) -> str:
    value = column.value(row)
    data = "" if value is None else f' data-value="{escape(str(value))}"'
    return f'<td class="{kind}"{data}>{escape(column.text(row))}</td>'


def _legend(text: str) -> str:
    return f'<p class="legend">{escape(text)}</p>'


def _example(out: Path, example: Example) -> str:
    """Question and answer, then one picture per method with what it kept and answered."""
    sample = example.sample
    head = f"<b>{escape(sample.question)}</b> Answer: {escape(sample.answer)}; un-pruned: {_answered(example.unpruned)}"
    return f"<p>{head}</p>\n" + "\n".join(_picture(out, painted) for painted in example.painted)


def _picture(out: Path, painted: Painted) -> str:
    name, result = escape(painted.method.pruner), painted.result
    caption = f"{name}, {result.num_kept} of {result.num_visual} tokens<br>{_answered(result)}"
    return _figure(out, painted, caption)


def _figure(out: Path, painted: Painted, caption: str) -> str:
    name, source = escape(painted.method.pruner), _data_uri(out / painted.picture)
    return f'<figure><img alt="{name}" src="{source}"><figcaption>{caption}</figcaption></figure>'


def _data_uri(path: Path) -> str:
    """A picture, made small enough that a page can hold many."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.thumbnail((PICTURE_PX, PICTURE_PX))
        image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _answered(result: Result) -> str:
    return f"{escape(result.prediction) or '(nothing)'} ({'right' if result.correct else 'wrong'})"
