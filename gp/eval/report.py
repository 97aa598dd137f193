"""The report: table, curve, examples, and everything needed to make it again; once as Markdown, once as HTML."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from gp.config import TrainConfig
from gp.config.sets import set_options
from gp.eval.figures import accuracy_curve
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
        curve: path of the PNG, relative to the report.
        examples: painted samples.
    """

    split: str
    rows: Sequence[dict[str, Any]]
    curve: str
    examples: Sequence[Example]


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
    """

    name: str
    facts: Mapping[str, str]
    sections: Sequence[Section]
    left_out: Sequence[LeftOut]
    settings: Mapping[str, Any]
    sets: Sequence[Sequence[str]] = ()
    judged: Sequence[Sequence[str]] = ()
    judge: str = ""


def make_report(
    out: Path,
    rows: Sequence[dict[str, Any]],
    examples: Mapping[str, Sequence[Example]],
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
        examples: split -> painted samples.
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
        curve = accuracy_curve(of_split, out / FOLDER / f"{split}-accuracy.png")
        sections.append(Section(split, of_split, f"{FOLDER}/{curve.name}", examples.get(split, ())))
    shown = {**settings, "eval": asdict(config.eval), "data": {"root": config.data.root, "test": config.data.test}}
    facts = _facts(settings, device, command or shlex.join(["python", *sys.argv]))
    sets = lines_of(rows, {section.split: set_options(config.eval, section.split).scores[0] for section in sections})
    judge = lines_of_judged(rows), caption_of(rows, judged)
    return EvalReport(config.name, facts, sections, left_out, shown, sets, *judge)


def _facts(settings: Mapping[str, Any], device: torch.device, command: str) -> dict[str, str]:
    versions = {"gp": __version__, **library_versions()}
    return {
        "command": command,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "trained parts": f"{settings['ckpt_id']}, on base {settings['base']} in {settings['dtype']}",
        "device": f"{device_name(device)}, {torch.get_num_threads()} threads",
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
