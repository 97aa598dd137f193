"""The report as Markdown, with its pictures in files beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gp.eval import breakdown, figures, judged, lines, sets_table, table
from gp.eval.gallery import LEGEND as GALLERY_LEGEND
from gp.eval.gallery import Failures, evidence_lost
from gp.eval.overlays import LEGEND as OVERLAY_LEGEND
from gp.eval.overlays import Example, describe
from gp.eval.renewing import marked
from gp.eval.report import EvalReport, Section
from gp.eval.results import Result
from gp.runs.writing import write_text

FILE = "report.md"


def write_markdown(out: Path, report: EvalReport) -> Path:
    """Writes `report.md` into the folder; returns its path."""
    facts = {**report.facts, "command": f"`{report.facts['command']}`"}
    parts = [
        f"# Evaluation of {report.name}",
        *map(_plain, report.headline),
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
    ]
    if report.left_out:
        parts += ["## Left out", "\n".join(f"- `{one.method.label}`: {one.reason}" for one in report.left_out)]
    if report.sets:
        parts += ["## Sets", lines.markdown(report.sets, sets_table.NUM_TEXT_COLUMNS), sets_table.LEGEND]
    parts.append(marked(judged.PART, judge_part(report.judged, report.judge)))
    for section in report.sections:
        parts += _section(section)
    parts += ["## Settings", f"```json\n{json.dumps(report.settings, indent=1)}\n```"]
    path = out / FILE
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def judge_part(of_sets: Sequence[Sequence[str]], caption: str) -> str:
    """What a judge says: the table of several sets, and who judged; empty if nobody did."""
    if not caption:
        return ""
    table_of_sets = [lines.markdown(of_sets, sets_table.NUM_TEXT_COLUMNS), judged.LEGEND] if of_sets else []
    return "\n\n".join(["## Judge", *table_of_sets, _plain(caption)])


def _section(section: Section) -> list[str]:
    rows = marked(section.split, table.markdown_table(section.rows))
    parts = [f"## Split `{section.split}`", rows, table.LEGEND]
    parts += [f"![accuracy against budget]({section.curve})", figures.LEGEND]
    if section.speed:
        parts += [f"![accuracy against speed]({section.speed})", figures.SPEED_LEGEND]
    if section.reliability:
        ece = table.vip_ece(section.rows)
        parts += [f"![calibration]({section.reliability})", f"{figures.RELIABILITY_LEGEND} {ece}"]
    if section.groups:
        tables = (lines.markdown(group, breakdown.NUM_TEXT_COLUMNS) for group in section.groups)
        parts += ["### Kinds of questions", *tables, breakdown.LEGEND]
    if section.examples:
        parts += ["### Examples", OVERLAY_LEGEND, *map(_example, section.examples)]
    if section.failures:
        parts += ["### Answers that pruning changed", GALLERY_LEGEND]
        parts += [part for one in section.failures for part in _failures(one)]
    return parts


def _failures(one: Failures) -> list[str]:
    """How much a row changed, then a table of the questions shown."""
    head = f"**{one.method.label}**: {one.num_changed} of {one.num_samples} answers changed"
    if not one.shown:
        return [head]
    cells = [["picture", "question", "answer", "un-pruned", "pruned", "evidence lost %"]]
    for example in one.shown:
        (painted,) = example.painted
        cells.append(
            [
                f"![{_plain(describe(painted))}]({painted.picture})",
                *map(_plain, (example.sample.question, example.sample.answer)),
                _answered(example.unpruned),
                _answered(painted.result),
                table.percent(evidence_lost(painted.result)),
            ]
        )
    return [head, lines.markdown(cells, 5)]


def _example(example: Example) -> str:
    """Question and answer, then one picture per method with what it kept and answered."""
    sample, unpruned = example.sample, example.unpruned
    head = f"**{_plain(sample.question)}** Answer: {_plain(sample.answer)}; un-pruned: {_answered(unpruned)}"
    if not example.painted:
        return head
    names = [f"{p.method.pruner}, {p.result.num_kept} of {p.result.num_visual} tokens" for p in example.painted]
    pictures = [f"![{_plain(describe(p))}]({p.picture})" for p in example.painted]
    answers = [_answered(p.result) for p in example.painted]
    lines = [names, ["---"] * len(names), pictures, answers]
    return head + "\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _answered(result: Result) -> str:
    return f"{_plain(result.prediction) or '(nothing)'} ({'right' if result.correct else 'wrong'})"


def _plain(text: str) -> str:
    """One line that Markdown and its tables show as it is."""
    for character in "\\`*_|<>[]":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
