"""Peak memory of ranking N visual tokens, beside what the matrix takes that none of these ways holds.

received: the attention that each token receives in a vision block (visionzip, vscan), beside heads x N x N weights.
divprune, cdpruner: greedy selection, beside one N x N matrix of distances, or kernel. vscan merge: each dropped token
joins the kept one that it resembles most, beside one N x N matrix of similarities. All matrices in float32.

Random tokens. Each cell is a process of its own, which notes its peak before and after the scoring; the difference is
reported, so libraries and the tokens themselves are left out. For the marks that are read see `gp.measure.peak_memory`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from gp.backbones.vision_attention import received_attention
from gp.bench.options import OptionError, add_device, add_keep_ratio, check_at_least, check_device
from gp.bench.own_process import add_way_argument, in_own_process, peak_of
from gp.bench.report import BenchReport, TextTable, machine
from gp.measure.peak_memory import MIB
from gp.measure.stopwatch import timed_s
from gp.pruners.divprune import most_diverse
from gp.pruners.dpp import greedy_map
from gp.pruners.vscan import merge_into_kept


@dataclass(frozen=True)
class Size:
    """Sizes that are measured, besides the number of tokens.

    Args:
        heads, head_size: of the vision block.
        hidden: size of the LLM.
        keep_ratio: tokens that stay / all.
    """

    heads: int
    head_size: int
    hidden: int
    keep_ratio: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--heads", type=int, default=16, help="attention heads of the vision block (16)")
    parser.add_argument("--head-size", type=int, default=80, help="size of each head (80)")
    parser.add_argument("--hidden", type=int, default=512, help="hidden size of the LLM (512)")
    add_keep_ratio(parser, 0.11)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096, 16384], help="N (1024 4096 16384)")
    parser.add_argument("--only", choices=WAYS, nargs="+", default=list(WAYS), help="which scorings (all)")
    add_device(parser)
    add_way_argument(parser, WAYS)


def run(options: argparse.Namespace) -> BenchReport | None:
    """Measures everything, or prints the figures of one way if told to."""
    size = read_size(options)
    if options.memory_of:
        print(json.dumps(measure(options.memory_of, options.tokens[0], size, options.device)))
        return None
    cells = [(way, tokens) for way in options.only for tokens in options.tokens]
    rows = []
    for number, (way, tokens) in enumerate(cells, 1):
        rows.append({"way": way, "tokens": tokens, "matrix_mib": matrix_mib(way, tokens, size)})
        rows[-1] |= in_own_process([*options.arguments, "--tokens", str(tokens)], way)
        print(f"{number} of {len(cells)}: {way}, {tokens} tokens, {rows[-1]['seconds']:.1f} s", file=sys.stderr)
    where, figures = {**machine(options.device), "dtype": "float32"}, {"size": asdict(size), "rows": rows}
    return BenchReport(where, figures, [make_table(size, rows)])


def read_size(options: argparse.Namespace) -> Size:
    """OptionError for sizes, numbers of tokens or a device that cannot be."""
    check_at_least(1, options, ("heads", "head_size", "hidden"))
    check_device(options.device)
    if not 0 < options.keep_ratio <= 1:
        raise OptionError(f"--keep-ratio must be above 0 and at most 1, got {options.keep_ratio}")
    if min(options.tokens) < 2:
        raise OptionError(f"--tokens must be at least 2, got {min(options.tokens)}")
    return Size(**{field.name: getattr(options, field.name) for field in fields(Size)})


def measure(way: str, tokens: int, size: Size, device: str) -> dict[str, float]:
    """Peak above tokens and libraries, MiB, and seconds; to be run in a fresh process."""
    prepare = WAYS[way]
    prepare(8, size, device)()  # kernels and libraries are loaded now
    score, seconds = prepare(tokens, size, device), []
    peak_mib = peak_of(lambda: seconds.append(timed_s(score, device)), device)
    return {"peak_mib": peak_mib, "seconds": seconds[0]}


def matrix_mib(way: str, tokens: int, size: Size) -> float:
    """Memory that the matrix of all pairs would take, MiB."""
    return (size.heads if way == "received" else 1) * tokens**2 * 4 / MIB


def make_table(size: Size, rows: Sequence[dict[str, Any]]) -> TextTable:
    kept = f"{100 * size.keep_ratio:g} % kept"
    title = f"Scoring, {size.heads} heads of {size.head_size}, hidden size {size.hidden}, {kept}"
    table = TextTable(title, ("scoring", "N", "peak, MiB", "all pairs, MiB", "share", "s"))
    for row in rows:
        peak, matrix = row["peak_mib"], row["matrix_mib"]
        cells = (f"{peak:.0f}", f"{matrix:.0f}", f"{peak / matrix:.3f}", f"{row['seconds']:.1f}")
        table.add(row["way"], str(row["tokens"]), *cells)
    return table


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
    return max(1, int(tokens * size.keep_ratio))


WAYS: dict[str, Callable[[int, Size, str], Callable[[], Any]]] = {
    "received": _received,
    "divprune": _divprune,
    "cdpruner": _cdpruner,
    "vscan merge": _merge,
}
