"""The report: table, curve, examples, and everything needed to make it again; once as Markdown, once as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from gp.cli import command_line
from gp.config import TrainConfig
from gp.config.sets import set_options
from gp.eval import breakdown, figures
from gp.eval.gallery import Failures
from gp.eval.headline import headline
from gp.eval.judged import caption_of, lines_of_judged
from gp.eval.overlays import FOLDER, Example
from gp.eval.plan import LeftOut
from gp.eval.sets_table import lines_of
from gp.measure.machine import device_name, library_versions
from gp.version import __version__


@dataclass(frozen=True)
class Section:
    """Part of the report on one split.

    Args:
        split: its name.
        rows: as in `summary.json`.
        curve: path of the PNG, relative to the report; PDF and SVG lie beside it.
        speed: the same of accuracy against speed; None where no time was measured.
        reliability: the same of the predicted importance's calibration, None where `glimpse` has no row of its own.
        calibration: its bins, see `gp.metrics.Calibration`; empty without it.
        groups: tables of kinds of questions, each as lines with heads first, see `gp.eval.breakdown`.
        examples: painted samples.
        failures: what pruning changed, see `gp.eval.gallery`.
    """

    split: str
    rows: Sequence[dict[str, Any]]
    curve: str | None
    speed: str | None
    reliability: str | None
    calibration: Mapping[str, Sequence[float]]
    groups: Sequence[Sequence[Sequence[str]]]
    examples: Sequence[Example]
    failures: Sequence[Failures]


@dataclass(frozen=True)
class EvalReport:
    """Content of a report, whatever it is written in.

    Args:
        name: of the run.
        facts: command, date, trained parts, device, versions.
        sections: one per split.
        left_out: rows that could not be run.
        settings: what results depend on, and the sections of the config.
        sets: lines of the table of several sets, heads first, see `gp.eval.sets_table`; none where there is one set.
        judged: the same of a judge's scores, see `gp.eval.judged`.
        judge: who judged, and how many answers; empty: nobody.
        headline: sentences with the result, see `gp.eval.headline`.
    """

    name: str
    facts: Mapping[str, str]
    sections: Sequence[Section]
    left_out: Sequence[LeftOut]
    settings: Mapping[str, Any]
    sets: Sequence[Sequence[str]] = ()
    judged: Sequence[Sequence[str]] = ()
    judge: str = ""
    headline: Sequence[str] = ()


def make_report(
    out: Path,
    rows: Sequence[dict[str, Any]],
    groups: Sequence[dict[str, Any]],
    examples: Mapping[str, Sequence[Example]],
    failures: Mapping[str, Sequence[Failures]],
    reliability: Mapping[str, Mapping[str, Sequence[float]]],
    left_out: Sequence[LeftOut],
    settings: Mapping[str, Any],
    config: TrainConfig,
    device: torch.device,
    command: str | None = None,
    judged: Mapping[str, Any] | None = None,
) -> EvalReport:
    """Gathers a report and draws its curves.

    Args:
        out: its folder; curves go to the subfolder `figures`.
        rows: as in `summary.json`.
        groups: as in `breakdown.json`.
        examples: split -> painted samples.
        failures: split -> what pruning changed.
        reliability: split -> bins of the predicted importance, where there are any.
        left_out: rows that could not be run.
        settings: what the results depend on.
        config: for the settings of evaluation and data.
        device: that it ran on.
        command: that makes the report again; None: the command line of this process.
        judged: as of `gp.eval.judged.read_judged`.
    """
    sections = []
    for split in dict.fromkeys(row["split"] for row in rows):
        of_split = [row for row in rows if row["split"] == split]
        curve = reliability.get(split, {})
        sections.append(
            Section(
                split=split,
                rows=of_split,
                curve=_save(figures.draw(of_split), out, f"{split}-accuracy"),
                speed=_save(figures.draw_speed(of_split), out, f"{split}-speed"),
                reliability=_save(figures.draw_reliability(curve) if curve else None, out, f"{split}-reliability"),
                calibration=curve,
                groups=breakdown.lines_of([row for row in groups if row["split"] == split]),
                examples=examples.get(split, ()),
                failures=failures.get(split, ()),
            )
        )
    shown = {**settings, "eval": asdict(config.eval), "data": {"root": config.data.root, "test": config.data.test}}
    facts = _facts(settings, device, command or command_line())
    scores = {section.split: set_options(config.eval, section.split).scores[0] for section in sections}
    sets = lines_of(rows, scores)
    judge = lines_of_judged(rows), caption_of(rows, judged)
    return EvalReport(config.name, facts, sections, left_out, shown, sets, *judge, headline(rows, scores))


def _save(drawn: tuple[Figure, Any] | None, out: Path, name: str) -> str | None:
    """Writes a figure into the folder of pictures; returns the PNG's path from the report, None for no figure."""
    return None if drawn is None else f"{FOLDER}/{figures.save(drawn[0], out / FOLDER / name).name}"


def _facts(settings: Mapping[str, Any], device: torch.device, command: str) -> dict[str, str]:
    versions = {"gp": __version__, **library_versions()}
    return {
        "command": command,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "trained parts": f"{settings['ckpt_id']}, on base {settings['base']} in {settings['dtype']}",
        "device": f"{device_name(device)}, {torch.get_num_threads()} threads",
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
