"""Requests a second, time to the first token and accuracy of vLLM, vLLM with the plug-in, the front and our server.

All servers run at once, each in processes of its own; they are asked in turn, round by round, the same questions, none
of them twice, so that nothing is answered from what a server has kept. Speed-ups are ratios of one round, in quartiles.
The last column counts answers that are those of the first way, letter by letter; `equal` in the figures has every pair.

    python -m gp.bench serve --samples 16 --rounds 3
    python -m gp.bench serve --base Qwen/Qwen2.5-VL-7B-Instruct --glimpse runs/qwen7b/glimpse --device cuda:0 \\
        --data 'data/viscot/val-*.tar' --methods divprune visionzip --vllm-args "--gpu-memory-utilization 0.3"

Needs the extras serve and vllm; `--vllm PYTHON` takes vLLM of another environment, in which gp must be installed, too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gp.bench.options import OptionError, check_at_least
from gp.bench.report import BenchReport, TextTable, machine
from gp.integrations.vllm.settings import METHODS
from gp.measure.spread import Spread, ratio

if TYPE_CHECKING:
    from gp.bench.serve_rounds import Cell

WAYS = ("vllm", "plugin", "front", "gp")
COLUMNS = ("concurrency", "way", "requests/s", "x {first}", "first token, ms", "ms a token", "right", "as {first}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", default="tiny", help="hub id, folder, or tiny (tiny)")
    parser.add_argument("--glimpse", help="trained parts of all but stock vLLM (tiny for the base tiny)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help=f"({' '.join(WAYS)})")
    parser.add_argument("--methods", nargs="+", default=["divprune"], help="of the plug-in (divprune)")
    parser.add_argument("--budget", type=float, default=0.111, help="share kept, of plug-in and our server (0.111)")
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 4, 16], help="requests at a time (1 4 16)")
    parser.add_argument("--samples", type=int, default=16, help="questions for each concurrency and round (16)")
    parser.add_argument("--repeats", "--rounds", type=int, default=3, help="rounds (3)")
    parser.add_argument("--max-tokens", type=int, default=16, help="of an answer (16)")
    parser.add_argument("--data", nargs="+", default=["tiny:test"], help="shards (tiny:test)")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of relative shards (data)")
    parser.add_argument("--device", default="cpu", help="cpu, or the GPU of front and our server; vLLM's is its own")
    parser.add_argument("--vllm", default=sys.executable, metavar="PYTHON", help="of the environment with vLLM (this)")
    parser.add_argument("--vllm-args", default="", help="further arguments of vLLM's servers, in quotes")
    parser.add_argument("--serve-args", default="", help="further key=value of our server, in quotes")
    parser.add_argument("--logs", type=Path, help="folder for what the servers write (none is kept)")


def run(options: argparse.Namespace) -> BenchReport:
    """Starts the servers, asks, and ends them."""
    check_at_least(1, options, ("samples", "repeats", "max_tokens"))
    check(options)
    try:
        from gp.bench.serve_rounds import WARM_UP, measure, read_questions, servers
    except ModuleNotFoundError as error:
        raise OptionError(f'{error.name} is not installed: pip install "glimpse-prune[serve]"') from error

    counted = options.samples * len(options.concurrency) * options.repeats
    questions = read_questions(options.data, options.root, counted + WARM_UP)
    with tempfile.TemporaryDirectory() as folder:
        logs = options.logs or Path(folder)
        logs.mkdir(parents=True, exist_ok=True)
        with servers(options, logs) as ways:
            cells = measure(ways, questions, options)
    where = {**machine(), "base": options.base, "data": options.data, "budget": options.budget}
    rows = summarize(cells)
    title = f"{options.repeats} x {options.samples} questions of {' '.join(options.data)}, budget {options.budget:g}"
    return BenchReport(where, {"rows": rows}, [table_of(rows, title)])


def check(options: argparse.Namespace) -> None:
    """OptionError for what would end only after servers have loaded their models."""
    if options.glimpse is None and options.base == "tiny":
        options.glimpse = "tiny"
    if wrong := [one for one in options.methods if one not in METHODS]:
        raise OptionError(f"--methods must be of {', '.join(METHODS)}, got {wrong[0]}")
    if not 0 < options.budget <= 1:
        raise OptionError(f"--budget must be in (0, 1], got {options.budget:g}")
    if min(options.concurrency) < 1:
        raise OptionError(f"--concurrency must be 1 or more, got {min(options.concurrency)}")
    if "front" in options.ways and "vllm" not in options.ways:
        raise OptionError("--ways front stands before vLLM: name vllm, too")
    if "front" in options.ways and options.glimpse is None:
        raise OptionError("--ways front looks by a glimpse: give --glimpse")
    if "plugin" in options.ways and "glimpse" in options.methods and options.glimpse is None:
        raise OptionError("--methods glimpse has trained parts: give --glimpse")


def summarize(cells: Mapping[tuple[int, str], Cell]) -> list[dict[str, Any]]:
    """A row for each concurrency and way; speed-ups and equal answers against the first way of the same concurrency."""
    first: dict[int, Cell] = {}
    rows = []
    for (concurrency, name), cell in cells.items():
        reference = first.setdefault(concurrency, cell)
        tokens = [one.token_s for one in cell.answers if one.token_s is not None]
        rows.append(
            {
                "concurrency": concurrency,
                "way": name,
                "requests_per_s": Spread.from_values(cell.rates),
                "speed_up": ratio(cell.rates, reference.rates),
                "first_s": Spread.from_values([one.first_s for one in cell.answers]),
                "token_s": Spread.from_values(tokens) if tokens else None,
                "accuracy": sum(cell.right) / len(cell.right),
                "questions": len(cell.right),
                "equal": {way: same(cell, other) for (many, way), other in cells.items() if many == concurrency},
            }
        )
    return rows


def same(cell: Cell, other: Cell) -> int:
    """How many questions have the same answer, but for spaces around it, which servers strip or not."""
    return sum(a.text.strip() == b.text.strip() for a, b in zip(cell.answers, other.answers, strict=True))


def table_of(rows: Sequence[dict[str, Any]], title: str) -> TextTable:
    table = TextTable(title, tuple(column.format(first=rows[0]["way"]) for column in COLUMNS))
    for row in rows:
        table.add(
            str(row["concurrency"]),
            row["way"],
            quartiles(row["requests_per_s"], 1),
            quartiles(row["speed_up"], 1),
            quartiles(row["first_s"], 1000, 0),
            "-" if row["token_s"] is None else quartiles(row["token_s"], 1000, 0),
            f"{100 * row['accuracy']:.1f} % of {row['questions']}",
            str(row["equal"][rows[0]["way"]]),
        )
    return table


def quartiles(spread: Spread, unit: float, digits: int = 2) -> str:
    """Median and quartiles in a cell."""
    low, middle, high = (f"{unit * value:.{digits}f}" for value in (spread.low, spread.median, spread.high))
    return f"{middle} [{low}, {high}]"
