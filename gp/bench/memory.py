"""The memory bill of a training step, and the cards that it fits; computed, nothing is run.

`python -m gp.bench train` prints the same bill beside measured peaks. `--task grpo` is the bill of GlimpsePrune+, with
the work of a micro-batch and the time below which a device cannot come. A card counts as big enough if the bill and 1.5
GB for what it leaves out (CUDA's context, workspaces, the allocator's waste) fit into its size in units of 10^9 bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gp.bench.bill import WAYS, Bill, bill_of
from gp.bench.large_bill import cards_needed
from gp.bench.options import (
    OptionError,
    add_keep_ratio,
    add_model_arguments,
    check_at_least,
    check_choice,
    dtype_name,
    read_dtype,
    read_preset,
)
from gp.bench.plus_bill import WAYS as PLUS_WAYS
from gp.bench.plus_bill import Draw, PlusWork, plus_bill, plus_work
from gp.bench.presets import Preset
from gp.bench.report import BenchReport, TextTable, versions
from gp.measure.machine import GIB

CARDS_GB = (24, 40, 48, 80)
LEFT_OUT_BYTES = 1_500_000_000
TASKS = ("glimpse", "grpo")
PLUS_ANSWER = 128  # tokens, unless --answer says otherwise
TERA, GIGA = 1e12, 1e9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, "qwen7b", ("visual", "text", "answer", "batch"))
    parser.add_argument("--task", default=TASKS[0], help=f"of the config: {', '.join(TASKS)} ({TASKS[0]})")
    add_keep_ratio(parser, 0.2)
    parser.add_argument("--group", type=int, default=4, help="grpo: answers to each question (4)")
    parser.add_argument("--rank", type=int, default=32, help="grpo: of the adapter (32)")
    parser.add_argument("--tflops", type=float, default=312.0, help="grpo: peak of the device (312, an A100 in bf16)")
    parser.add_argument(
        "--gb-per-s", type=float, default=2039.0, help="grpo: its memory's bandwidth (2039, A100 80 GB)"
    )


def run(options: argparse.Namespace) -> BenchReport:
    """Computes everything."""
    check_choice("--task", options.task, TASKS)
    if options.task == "grpo":
        return run_plus(options)
    preset, dtype = read_preset(options), read_dtype(options)
    bills = {way: bill_of(preset, dtype.itemsize, options.attn, way) for way in WAYS}
    tokens = f"{preset.batch} x ({preset.visual} visual + {preset.text} text + {preset.answer} answer tokens)"
    title = f"Bill of a training step, GiB: {options.preset}, {dtype_name(dtype)}, {options.attn}, {tokens}"
    rooms = {card: card * 10**9 - LEFT_OUT_BYTES for card in CARDS_GB}
    needed = cards_needed(preset, dtype.itemsize, options.attn, rooms)
    tables = [bill_table(title, bills), card_table(bills), needed_table(needed)]
    return BenchReport(versions(), {"bills": _figures(bills), "cards_needed": needed}, tables)


def run_plus(options: argparse.Namespace) -> BenchReport:
    """The bill and the work of a micro-batch of task `grpo`."""
    preset, dtype = read_preset(options), read_dtype(options)
    if options.answer is None:
        preset = replace(preset, answer=PLUS_ANSWER)
    draw = _read_draw(options, preset)
    bills = {way: plus_bill(preset, draw, dtype.itemsize, options.attn, way) for way in PLUS_WAYS}
    works = {way: plus_work(preset, draw, dtype.itemsize, options.attn, way) for way in PLUS_WAYS}
    tokens = f"{preset.batch} x ({preset.visual} visual, {draw.kept} of them kept, + {preset.text} text tokens"
    tokens += f" + {draw.group} x {preset.answer} answer tokens), rank {draw.rank}"
    title = f"Bill of a micro-batch of grpo, GiB, by what gradients flow through: {options.preset}, "
    title += f"{dtype_name(dtype)}, {options.attn}, {tokens}"
    bounds = {way: work.bound_s(options.tflops * TERA, options.gb_per_s * GIGA) for way, work in works.items()}
    tables = [bill_table(title, bills), card_table(bills), work_table(works, bounds, options)]
    work_figures = {way: {"flops": work.flops, "bound_s": bounds[way]} for way, work in works.items()}
    return BenchReport(versions(), {"bills": _figures(bills), "work": work_figures}, tables)


def _read_draw(options: argparse.Namespace, preset: Preset) -> Draw:
    check_at_least(2, options, ("group",))
    check_at_least(1, options, ("rank",))
    for name in ("tflops", "gb_per_s"):
        if not getattr(options, name) > 0:
            raise OptionError(f"--{name.replace('_', '-')} must be above 0, got {getattr(options, name)}")
    kept = int(options.keep_ratio * preset.visual)
    if not 0 < options.keep_ratio <= 1 or kept < 1:
        raise OptionError(
            f"--keep-ratio must keep at least 1 of {preset.visual} tokens and at most all: {options.keep_ratio}"
        )
    return Draw(options.group, kept, options.rank)


def work_table(works: dict[str, PlusWork], bounds: dict[str, float], options: argparse.Namespace) -> TextTable:
    """Operations by stage, and the least time that they can take."""
    title = f"Work of a micro-batch, TFLOP; at {options.tflops:g} TFLOP/s and {options.gb_per_s:g} GB/s at least"
    table = TextTable(title, ("stage", *works))
    for stage in next(iter(works.values())).flops:
        table.add(stage, *(f"{work.flops[stage] / TERA:.1f}" for work in works.values()))
    table.add("all", *(f"{sum(work.flops.values()) / TERA:.1f}" for work in works.values()))
    table.add("seconds, at least", *(f"{bound:.2f}" for bound in bounds.values()))
    return table


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


def needed_table(needed: Mapping[str, Mapping[int, int | None]]) -> TextTable:
    """How many cards each way of a large base needs for a step with the prefix."""
    table = TextTable("Cards that a step needs, by the way of the frozen base", ("way", *(f"{c} GB" for c in CARDS_GB)))
    for way, counts in needed.items():
        table.add(way, *("-" if count is None else str(count) for count in counts.values()))
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
