"""Reports of benches: tables on the screen and in markdown, all figures in JSON, and the machine."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gp.bench.options import Setup, command_line, dtype_name
from gp.bench.rounds import share_of_bound
from gp.measure.machine import device_name, library_versions, memory_gib
from gp.measure.spread import Spread
from gp.version import __version__

CONSOLE_WIDTH = 130
RATIO_COLUMNS = ("what", "measured", "quartiles", "bound", "share of the bound")
SHARE_NOTE = (
    "Share of the bound: time saved / time that the bound lets save; negative where time is lost, above 100 % where "
    "the slower way is further from its own ideal, not given for bounds that save less than 5 %."
)


@dataclass
class TextTable:
    """Columns, and rows of finished text."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        self.rows.append(cells)

    def markdown(self) -> str:
        lines = [f"**{self.title}**", "", _line(self.columns), _line("---" for _ in self.columns)]
        return "\n".join([*lines, *(_line(row) for row in self.rows)])

    def show(self, console: Console) -> None:
        table = Table(*map(escape, self.columns), title=escape(self.title))
        for row in self.rows:
            table.add_row(*map(escape, row))
        console.print(table)


class SpeedUps(TextTable):
    """Speed-ups, each beside the greatest that there can be."""

    def __init__(self, title: str) -> None:
        super().__init__(title, RATIO_COLUMNS)

    def compare(self, what: str, measured: Spread, bound: float) -> dict[str, Any]:
        """Adds a row, and returns it for JSON."""
        share = share_of_bound(measured.median, bound)
        quartiles = f"{measured.low:.2f} .. {measured.high:.2f}"
        shown = "-" if share is None else f"{100 * share:.0f} %"
        self.add(what, f"{measured.median:.2f} x", quartiles, f"{bound:.2f} x", shown)
        return {"speed_up": measured, "bound": bound, "share_of_bound": share}


@dataclass
class BenchReport:
    """One run of a bench.

    Args:
        where: the machine, of `machine` or `environment`, or `versions` where nothing was run.
        figures: everything measured and computed, ready for JSON.
        tables: for people.
    """

    where: dict[str, Any]
    figures: dict[str, Any] = field(default_factory=dict)
    tables: list[TextTable] = field(default_factory=list)

    def publish(self, options: Namespace) -> None:
        """Prints the tables, and writes the files that were asked for."""
        console = Console(width=CONSOLE_WIDTH)
        console.print(device_line(self.where), highlight=False, soft_wrap=True)
        for table in self.tables:
            table.show(console)
        for note in self._notes():
            console.print(note, highlight=False, soft_wrap=True, markup=False)
        if options.json:
            _write(options.json, json.dumps(self.as_dict(options), indent=1) + "\n")
        if options.markdown:
            _write(options.markdown, self.markdown(options))

    def as_dict(self, options: Namespace) -> dict[str, Any]:
        command = command_line(options.arguments)
        return {"bench": options.bench, "command": command, "where": self.where, **_plain(self.figures)}

    def markdown(self, options: Namespace) -> str:
        head = f"    {command_line(options.arguments)}\n\n{device_line(self.where)}"
        return "\n\n".join([head, *(table.markdown() for table in self.tables), *self._notes()]) + "\n"

    def _notes(self) -> list[str]:
        return [SHARE_NOTE] if any(isinstance(table, SpeedUps) for table in self.tables) else []


def environment(setup: Setup) -> dict[str, Any]:
    """Machine, libraries and model of a measurement."""
    model = {"dtype": dtype_name(setup.dtype), "attn": setup.attn, "preset": asdict(setup.preset)}
    return {**machine(setup.device), **model}


def machine(device: str = "cpu") -> dict[str, Any]:
    """Machine and libraries of a measurement."""
    where = {"device": device_name(device), "threads": torch.get_num_threads(), "memory_gib": memory_gib()[0]}
    return {**where, **versions()}


def versions() -> dict[str, str]:
    return {"gp": __version__, **library_versions()}


def device_line(where: dict[str, Any]) -> str:
    libraries = f"torch {where['torch']}, transformers {where['transformers']}"
    if "device" not in where:
        return libraries
    model = [where[key] for key in ("dtype", "attn") if key in where]
    return ", ".join([where["device"], f"{where['threads']} threads", *model]) + f"; {libraries}"


def time_cells(spread: Spread) -> tuple[str, str]:
    """Median and quartiles of seconds, in milliseconds."""
    return f"{1e3 * spread.median:.1f}", f"{1e3 * spread.low:.1f} .. {1e3 * spread.high:.1f}"


def workload(setup: Setup) -> str:
    """A title: what was run."""
    preset = setup.preset
    model = f"{preset.layers} layers of {preset.hidden}"
    return f"{model}, {preset.batch} x ({preset.visual} visual + {preset.text} text tokens)"


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return asdict(value)
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
