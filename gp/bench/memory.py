"""The memory bill of a training step, and the cards that it fits; computed, nothing is run.

`python -m gp.bench train` prints the same bill beside measured peaks. A card counts as big enough if the bill and 1.5
GB for what it leaves out (CUDA's context, workspaces, the allocator's waste) fit into its size in units of 10^9 bytes.
"""

from __future__ import annotations

import argparse
from typing import Any

from gp.bench.bill import WAYS, Bill, bill_of
from gp.bench.options import add_model_arguments, dtype_name, read_dtype, read_preset
from gp.bench.report import BenchReport, TextTable, versions
from gp.measure.machine import GIB

CARDS_GB = (24, 40, 48, 80)
LEFT_OUT_BYTES = 1_500_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, "qwen7b", ("visual", "text", "answer", "batch"))


def run(options: argparse.Namespace) -> BenchReport:
    """Measures everything."""
    preset, dtype = read_preset(options), read_dtype(options)
    bills = {way: bill_of(preset, dtype.itemsize, options.attn, way) for way in WAYS}
    tokens = f"{preset.batch} x ({preset.visual} visual + {preset.text} text + {preset.answer} answer tokens)"
    title = f"Bill of a training step, GiB: {options.preset}, {dtype_name(dtype)}, {options.attn}, {tokens}"
    tables = [bill_table(title, bills), card_table(bills)]
    return BenchReport(versions(), {"bills": _figures(bills)}, tables)


def fits(bill: Bill, card_gb: int) -> bool:
    """Tells if a step fits a card of so many times 10^9 bytes."""
    return bill.total_bytes + LEFT_OUT_BYTES <= card_gb * 10**9


def bill_table(title: str, bills: dict[str, Bill]) -> TextTable:
    """One column per way; only the entries of each way's worst moment."""
    table = TextTable(title, ("entry", *bills))
    standing = next(iter(bills.values())).standing
    for name, size in standing.items():
        table.add(name, *[_gib(size)] * len(bills))
    worst = {way: bill.moments[bill.worst] for way, bill in bills.items()}
    for name in dict.fromkeys(name for entries in worst.values() for name in entries):
        table.add(name, *(_gib(entries[name]) if name in entries else "" for entries in worst.values()))
    table.add("all", *(_gib(bill.total_bytes) for bill in bills.values()))
    table.add("at its worst", *(bill.worst for bill in bills.values()))
    return table


def card_table(bills: dict[str, Bill]) -> TextTable:
    table = TextTable("Fits a card of", ("way", *(f"{card} GB" for card in CARDS_GB)))
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
