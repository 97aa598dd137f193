"""The report: table, curve, examples, and everything needed to make it again."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gp.config import TrainConfig
from gp.eval.figures import accuracy_curve
from gp.eval.overlays import FOLDER, Example
from gp.eval.table import LEGEND as TABLE_LEGEND
from gp.eval.table import markdown_table
from gp.version import __version__

FILE = "report.md"
CURVE_LEGEND = "Stars: the method's own decision. Dots: a budget. Bars: one standard error. Dashed: without pruning."
LIBRARIES = ("torch", "transformers", "lightning")


def write_report(
    out: Path,
    rows: Sequence[dict[str, Any]],
    examples: Mapping[str, Sequence[Example]],
    settings: Mapping[str, Any],
    config: TrainConfig,
    device: torch.device,
    command: str | None = None,
) -> Path:
    """Writes `report.md` and its curves.

    Args:
        out: the folder.
        rows: as in `summary.json`.
        examples: split -> painted samples.
        settings: what the results depend on.
        config: for the settings of evaluation and data.
        device: that it ran on.
        command: that makes the report again; None: the command line of this process.

    Returns:
        Path of the report.
    """
    parts = [f"# Evaluation of {config.name}", _facts(settings, device, command or shlex.join(["python", *sys.argv]))]
    for split in dict.fromkeys(row["split"] for row in rows):
        of_split = [row for row in rows if row["split"] == split]
        curve = accuracy_curve(of_split, out / FOLDER / f"{split}-accuracy.png")
        parts += [f"## Split `{split}`", markdown_table(of_split), TABLE_LEGEND]
        parts += [f"![accuracy against kept tokens]({FOLDER}/{curve.name})", CURVE_LEGEND]
        if examples.get(split):
            parts += ["### Examples", "Dropped tokens are darkened, evidence boxes outlined."]
            parts += [_example(example) for example in examples[split]]
    shown = {**settings, "eval": asdict(config.eval), "data": {"root": config.data.root, "test": config.data.test}}
    parts += ["## Settings", f"```json\n{json.dumps(shown, indent=1)}\n```"]
    path = out / FILE
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _facts(settings: Mapping[str, Any], device: torch.device, command: str) -> str:
    versions = {"gp": __version__, "python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    lines = {
        "command": f"`{command}`",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "trained parts": f"`{settings['ckpt_id']}`, on base {settings['base']} in {settings['dtype']}",
        "device": device_name(device),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
    return "\n".join(f"- {name}: {value}" for name, value in lines.items())


def device_name(device: torch.device) -> str:
    """What a reader can compare times with."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


def _example(example: Example) -> str:
    """Question and answer, then one picture a method with what it kept and answered."""
    sample, unpruned = example.sample, example.unpruned
    head = f"**{_plain(sample.question)}** Answer: {_plain(sample.answer)}; un-pruned: {_answered(unpruned)}"
    if not example.painted:
        return head
    names = [f"{p.method.pruner}, {p.result.num_kept} of {p.result.num_visual} tokens" for p in example.painted]
    pictures = [f"![{p.method.pruner}]({p.picture})" for p in example.painted]
    answers = [_answered(p.result) for p in example.painted]
    lines = [names, ["---"] * len(names), pictures, answers]
    return head + "\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _answered(result) -> str:
    return f"{_plain(result.prediction) or '(nothing)'} ({'right' if result.correct else 'wrong'})"


def _plain(text: str) -> str:
    """One line that Markdown and its tables show as it is."""
    for character in "\\`*_|<>[]":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
