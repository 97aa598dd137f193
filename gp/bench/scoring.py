"""Peak memory of ranking N visual tokens, beside what the matrix takes that none of these ways holds.

received: the attention that each token receives in a vision block (visionzip, vscan), beside heads x N x N weights.
divprune, cdpruner: greedy selection, beside one N x N matrix of distances, or kernel. vscan merge: each dropped token
joins the kept one that it resembles most, beside one N x N matrix of similarities. All matrices in float32.

Random tokens. Each cell is a process of its own, which notes its peak before and after the scoring; the difference is
reported, so libraries and the tokens themselves are left out. For the marks that are read see `gp.bench.measure`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gp.backbones.vision_attention import received_attention
from gp.bench.measure import peak_of, timed_s
from gp.pruners.divprune import most_diverse
from gp.pruners.dpp import greedy_map
from gp.pruners.vscan import merge_into_kept


@dataclass(frozen=True)
class Size:
    """What is measured beside the number of tokens. `keep`: tokens that stay, percent."""

    heads: int = 16
    head_size: int = 80
    hidden: int = 512
    keep: int = 11

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 1 or self.keep > 100:
            raise ValueError("--heads, --head-size and --hidden must be at least 1, --keep in 1..100")


SIZE_HELP = {
    "heads": "attention heads of the vision block",
    "head_size": "size of each head",
    "hidden": "hidden size of the LLM",
    "keep": "visual tokens that stay, percent",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for field in fields(Size):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=field.default, help=f"{SIZE_HELP[field.name]} ({field.default})")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096, 16384], help="N (1024 4096 16384)")
    parser.add_argument("--only", choices=WAYS, nargs="+", default=list(WAYS), help="which scorings (all)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (cpu)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)  # a process that measures one cell


def run(options: argparse.Namespace) -> int:
    """Prints a table and one line of JSON."""
    try:
        size = Size(**{field.name: getattr(options, field.name) for field in fields(Size)})
        if min(options.tokens) < 2:
            raise ValueError(f"--tokens must be at least 2, got {min(options.tokens)}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.memory_of:
        print(json.dumps(measure(options.memory_of, options.tokens[0], size, options.device)))
        return 0
    cells = [(way, tokens) for way in options.only for tokens in options.tokens]
    rows = []
    for number, (way, tokens) in enumerate(cells, 1):
        rows.append({"way": way, "tokens": tokens, "matrix_mib": matrix_mib(way, tokens, size)})
        rows[-1] |= _process(way, tokens, options)
        print(f"{number} of {len(cells)}: {way}, {tokens} tokens, {rows[-1]['seconds']:.1f} s", file=sys.stderr)
    figures = {"size": asdict(size), "device": options.device, "torch": torch.__version__, "rows": rows}
    print_table(figures)
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(way: str, tokens: int, size: Size, device: str) -> dict[str, float]:
    """Peak above tokens and libraries, MiB, and seconds; to be run in a fresh process."""
    prepare = WAYS[way]
    prepare(8, size, device)()  # kernels and libraries are loaded now
    score, seconds = prepare(tokens, size, device), []
    peak_mib = peak_of(lambda: seconds.append(timed_s(score, device)), device)
    return {"peak_mib": peak_mib, "seconds": seconds[0]}


def matrix_mib(way: str, tokens: int, size: Size) -> float:
    """What all pairs at once would take."""
    return (size.heads if way == "received" else 1) * tokens**2 * 4 / 2**20


def print_table(figures: dict[str, Any]) -> None:
    size = figures["size"]
    title = f"{size['heads']} heads of {size['head_size']}, hidden size {size['hidden']}, {size['keep']} % kept"
    table = Table(
        "scoring", "N", "peak, MiB", "all pairs, MiB", "share", "s", title=f"{title}, {figures['device']}, float32"
    )
    for row in figures["rows"]:
        peak, matrix = row["peak_mib"], row["matrix_mib"]
        cells = (f"{peak:.0f}", f"{matrix:.0f}", f"{peak / matrix:.3f}", f"{row['seconds']:.1f}")
        table.add_row(row["way"], str(row["tokens"]), *cells)
    Console(width=110).print(table)


def _process(way: str, tokens: int, options: argparse.Namespace) -> dict[str, float]:
    sizes = [part for f in fields(Size) for part in (f"--{f.name.replace('_', '-')}", str(getattr(options, f.name)))]
    cell = ["--device", options.device, "--tokens", str(tokens), "--memory-of", way]
    command = [sys.executable, "-m", "gp.bench", "scoring", *sizes, *cell]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _random(*shape: int, device: str) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device)


def _received(tokens: int, size: Size, device: str) -> Callable[[], Any]:
    query, keys = _random(2, size.heads, tokens, size.head_size, device=device)
    return lambda: received_attention(query, keys)


def _divprune(tokens: int, size: Size, device: str) -> Callable[[], Any]:
    embeds = _random(tokens, size.hidden, device=device)
    return lambda: most_diverse(embeds, _kept(tokens, size))


def _cdpruner(tokens: int, size: Size, device: str) -> Callable[[], Any]:
    unit = torch.nn.functional.normalize(_random(tokens, size.hidden, device=device), dim=-1)
    relevance = unit[:, 0].sigmoid()
    return lambda: greedy_map(unit, relevance, _kept(tokens, size))


def _merge(tokens: int, size: Size, device: str) -> Callable[[], Any]:
    embeds = _random(tokens, size.hidden, device=device)
    keep_mask = torch.arange(tokens, device=device) < _kept(tokens, size)
    return lambda: merge_into_kept(embeds, keep_mask)


def _kept(tokens: int, size: Size) -> int:
    return max(1, tokens * size.keep // 100)


WAYS: dict[str, Callable[[int, Size, str], Callable[[], Any]]] = {
    "received": _received,
    "divprune": _divprune,
    "cdpruner": _cdpruner,
    "vscan merge": _merge,
}
