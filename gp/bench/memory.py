"""The memory bill of a training step, and the cards that it fits; computed, nothing is run.

`python -m gp.bench train` prints the same bill beside measured peaks. A card counts as big enough if the bill and 1.5
GB for what it leaves out (CUDA's context, workspaces, the allocator's waste) fit into its size in units of 10^9 bytes.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from gp.bench.bill import GIB, WAYS, Bill, bill_of
from gp.bench.options import ATTENTIONS, DTYPES, WORKLOAD, add_output_arguments, check_choice, command_line, read_preset
from gp.bench.presets import PRESETS
from gp.bench.report import Report, Table, versions

CARDS_GB = (24, 40, 48, 80)
LEFT_OUT_BYTES = 1_500_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="qwen7b", help=f"size of the model: {', '.join(PRESETS)} (qwen7b)")
    for name in ("visual", "text", "answer", "batch"):
        parser.add_argument(f"--{name}", type=int, help=f"{WORKLOAD[name]} (the preset's)")
    parser.add_argument("--dtype", help="of the frozen model: float32, bfloat16, float16 (the preset's)")
    parser.add_argument("--attn", default="sdpa", help=f"attention kernel: {', '.join(ATTENTIONS)} (sdpa)")
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the tables and writes the files that were asked for."""
    preset = read_preset(options)
    dtype = options.dtype or preset.dtype
    check_choice("--dtype", dtype, DTYPES)
    check_choice("--attn", options.attn, ATTENTIONS)
    itemsize = getattr(torch, dtype).itemsize
    bills = {way: bill_of(preset, itemsize, options.attn, way) for way in WAYS}
    tokens = f"{preset.batch} x ({preset.visual} visual + {preset.text} text + {preset.answer} answer tokens)"
    title = f"Bill of a training step, GiB: {options.preset}, {dtype}, {options.attn}, {tokens}"
    tables = [bill_table(title, bills), card_table(bills)]
    Report("memory", command_line(options.arguments), versions(), {"bills": _figures(bills)}, tables).publish(options)
    return 0


def fits(bill: Bill, card_gb: int) -> bool:
    """Whether a step fits a card of so many times 10^9 bytes."""
    return bill.total_bytes + LEFT_OUT_BYTES <= card_gb * 10**9


def bill_table(title: str, bills: dict[str, Bill]) -> Table:
    """One column a way; only the entries of each way's worst moment."""
    table = Table(title, ("entry", *bills))
    standing = next(iter(bills.values())).standing
    for name, size in standing.items():
        table.add(name, *[_gib(size)] * len(bills))
    worst = {way: bill.moments[bill.worst] for way, bill in bills.items()}
    for name in dict.fromkeys(name for entries in worst.values() for name in entries):
        table.add(name, *(_gib(entries[name]) if name in entries else "" for entries in worst.values()))
    table.add("all", *(_gib(bill.total_bytes) for bill in bills.values()))
    table.add("at its worst", *(bill.worst for bill in bills.values()))
    return table


def card_table(bills: dict[str, Bill]) -> Table:
    table = Table("Fits a card of", ("way", *(f"{card} GB" for card in CARDS_GB)))
    for way, bill in bills.items():
        table.add(way, *("yes" if fits(bill, card) else "no" for card in CARDS_GB))
    return table


def _figures(bills: dict[str, Bill]) -> dict[str, Any]:
    return {
        way: {
            "standing_bytes": dict(bill.standing),
            "moments_bytes": {moment: dict(entries) for moment, entries in bill.moments.items()},
            "worst": bill.worst,
            "total_bytes": bill.total_bytes,
            "fits_gb": [card for card in CARDS_GB if fits(bill, card)],
        }
        for way, bill in bills.items()
    }


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
