"""The report as one HTML file that needs nothing else: tables that can be sorted, figures and pictures inside."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from gp.eval import breakdown, figures, judged, table
from gp.eval.gallery import LEGEND as GALLERY_LEGEND
from gp.eval.gallery import Failures, evidence_lost
from gp.eval.html_page import contents, folded, heading, legend, page, wide
from gp.eval.html_tables import SORTING, plain_table, rows_table
from gp.eval.overlays import LEGEND as OVERLAY_LEGEND
from gp.eval.overlays import Example, Painted, describe
from gp.eval.renewing import marked
from gp.eval.report import EvalReport, Section
from gp.eval.results import Result
from gp.eval.sets_table import LEGEND as SETS_LEGEND
from gp.eval.svg import inline_svg
from gp.runs.writing import write_text

FILE = "report.html"
PICTURE_PX = 320  # longer side of an example's picture
JPEG_QUALITY = 85
CURVE = "Accuracy against budget, a line per method. The table above has the same numbers."
SPEED = (
    "Accuracy against questions a second, and against the time of the prefill. The table above has the same numbers."
)
RELIABILITY = "Share of visual tokens that are evidence against the importance that glimpse predicts."


def write_html(out: Path, report: EvalReport) -> Path:
    """Writes `report.html` into the folder that holds the examples' pictures; returns its path."""
    facts = "".join(f"<li>{escape(name)}: <code>{escape(value)}</code></li>" for name, value in report.facts.items())
    parts = [
        *(f'<p class="headline">{escape(sentence)}</p>' for sentence in report.headline),
        _contents(report),
        f"<ul>{facts}</ul>",
        _left_out(report),
        _sets(report),
        marked(judged.PART, judge_part(report.judged, report.judge)),
        *(_section(out, f"split-{number}", section) for number, section in enumerate(report.sections)),
        heading(2, "settings", "Settings"),
        folded("All settings", f'<pre tabindex="0">{escape(json.dumps(report.settings, indent=1))}</pre>'),
    ]
    path = out / FILE
    write_text(path, page(f"Evaluation of {report.name}", parts))
    return path


def _contents(report: EvalReport) -> str:
    chapters: list[tuple[str, str, list[tuple[str, str]]]] = []
    chapters += [("left-out", "Left out", [])] if report.left_out else []
    chapters += [("sets", "Sets", [])] if report.sets else []
    chapters.append(("judge", "Judge", []))  # its link shows once there is one
    for number, section in enumerate(report.sections):
        name = f"split-{number}"
        shown = {
            "figures": ("Figures", True),
            "kinds": ("Kinds of questions", bool(section.groups)),
            "examples": ("Examples", bool(section.examples)),
            "changed": ("Changed answers", bool(section.failures)),
        }
        links = [(f"{name}-{part}", text) for part, (text, is_there) in shown.items() if is_there]
        chapters.append((name, f"Split {section.split}", links))
    return contents([*chapters, ("settings", "Settings", [])])


def _left_out(report: EvalReport) -> str:
    if not report.left_out:
        return ""
    lines = (f"<li><code>{escape(one.method.label)}</code>: {escape(one.reason)}</li>" for one in report.left_out)
    return f"{heading(2, 'left-out', 'Left out')}<ul>{''.join(lines)}</ul>"


def _sets(report: EvalReport) -> str:
    """The table of several sets; empty where there is one."""
    if not report.sets:
        return ""
    return heading(2, "sets", "Sets") + plain_table(report.sets, "Scores of all sets") + legend(SETS_LEGEND)


def judge_part(lines: Sequence[Sequence[str]], caption: str) -> str:
    """What a judge says: the table of several sets, and who judged; empty if nobody did."""
    if not caption:
        return ""
    of_sets = plain_table(lines, "The judge's scores of all sets") + legend(judged.LEGEND) if lines else ""
    return heading(2, "judge", "Judge") + of_sets + legend(caption)


def _section(out: Path, name: str, section: Section) -> str:
    parts = [heading(2, name, f"Split {section.split}"), marked(section.split, rows_table(section.rows))]
    parts += [legend(SORTING), folded("What the columns mean", legend(table.LEGEND)), *_figures(name, section)]
    if section.groups:
        labels = (f"{lines[0][0]}, split {section.split}" for lines in section.groups)
        tables = map(plain_table, section.groups, labels)
        parts += [heading(3, f"{name}-kinds", "Kinds of questions"), *tables, legend(breakdown.LEGEND)]
    if section.examples:
        parts += [heading(3, f"{name}-examples", "Examples"), legend(OVERLAY_LEGEND)]
        parts += [_example(out, one) for one in section.examples]
    if section.failures:
        parts += [heading(3, f"{name}-changed", "Answers that pruning changed"), legend(GALLERY_LEGEND)]
        parts += [_failures(out, one) for one in section.failures]
    return "\n".join(parts)


def _figures(name: str, section: Section) -> list[str]:
    """The curves of a split, each with its legend and its files."""
    split, parts = section.split, [heading(3, f"{name}-figures", "Figures")]
    budgets = inline_svg(*figures.draw(section.rows), split, CURVE)
    parts += [wide(budgets, f"Accuracy against budget, split {split}")]
    parts += [legend(figures.LEGEND), _files(section.curve)]
    if drawn := figures.draw_speed(section.rows):
        parts += [wide(inline_svg(*drawn, f"{split}-speed", SPEED), f"Accuracy against speed, split {split}")]
        parts += [legend(figures.SPEED_LEGEND), _files(section.speed)]
    if section.calibration:
        curve = inline_svg(*figures.draw_reliability(section.calibration), f"{split}-reliability", RELIABILITY)
        parts += [f'<div class="small">{curve}</div>']
        parts += [legend(f"{figures.RELIABILITY_LEGEND} {table.vip_ece(section.rows)}"), _files(section.reliability)]
    return parts


def _files(path: str | None) -> str:
    """Links to the files of a figure, which lie beside the report."""
    if path is None:
        return ""
    stem = path.rpartition(".")[0]
    links = (f'<a href="{quote(f"{stem}.{suffix}")}">{suffix.upper()}</a>' for suffix in figures.FORMATS)
    return f'<p class="legend">As a file beside this one: {", ".join(links)}</p>'


def _failures(out: Path, one: Failures) -> str:
    """How much a row changed, and behind a click the questions shown."""
    head = f"{one.method.label}: {one.num_changed} of {one.num_samples} answers changed"
    if not one.shown:
        return f"<p>{escape(head)}</p>"
    return folded(head, _pictures([_failure(out, example) for example in one.shown]), is_open=True)


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


def _example(out: Path, example: Example) -> str:
    """Question and answer, then one picture per method with what it kept and answered."""
    sample = example.sample
    head = f"<b>{escape(sample.question)}</b> Answer: {escape(sample.answer)}; un-pruned: {_answered(example.unpruned)}"
    return f"<p>{head}</p>\n{_pictures([_picture(out, painted) for painted in example.painted])}"


def _picture(out: Path, painted: Painted) -> str:
    name, result = escape(painted.method.pruner), painted.result
    caption = f"{name}, {result.num_kept} of {result.num_visual} tokens<br>{_answered(result)}"
    return _figure(out, painted, caption)


def _pictures(shown: Sequence[str]) -> str:
    return f'<div class="pictures">{"".join(shown)}</div>'


def _figure(out: Path, painted: Painted, caption: str) -> str:
    alt, source = escape(describe(painted)), _data_uri(out / painted.picture)
    return f'<figure><img alt="{alt}" src="{source}"><figcaption>{caption}</figcaption></figure>'


def _data_uri(path: Path) -> str:
    """A picture, made small enough that a page can hold many."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.thumbnail((PICTURE_PX, PICTURE_PX))
        image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _answered(result: Result) -> str:
    return f"{escape(result.prediction) or '(nothing)'} ({'right' if result.correct else 'wrong'})"
