"""Attention kernels and lengths of prompts: prefill, token and memory, pruned against un-pruned.

For every kernel and every number of visual tokens: prefill with the vision tower and transformers' `generate` behind
it, pruned and un-pruned in turn in one process. Memory, on a GPU only: what torch allocated at its peak above model
and batch. A kernel that is not installed, or a prompt that does not fit, is said so, and the rest goes on.
"""

from __future__ import annotations

import argparse
import gc
import sys
from functools import partial
from typing import Any

import torch

from gp.bench.cost import total
from gp.bench.decode import add_new_tokens, generate, memory_of_prompt
from gp.bench.options import ATTENTIONS, OptionError, Setup, check_at_least, read_numbers, read_setup
from gp.bench.options import add_arguments as add_shared_arguments
from gp.bench.prefill import cost_model, prefill_costs
from gp.bench.presets import random_inputs
from gp.bench.report import BenchReport, TextTable, environment
from gp.bench.rounds import interleaved
from gp.measure.spread import Spread, ratio
from gp.model import GlimpseModel

PRUNED, UNPRUNED = "pruned", "un-pruned"
WAYS = (UNPRUNED, PRUNED)
Cell = dict[str, Any]  # figures of one kernel at one length
COLUMNS = ("kernel", "visual tokens", "prompt", "prefill, ms", "times faster", "bound", "token, ms", "times faster")
MEMORY_COLUMNS = ("prefill peak, MiB", "decode peak, MiB")
NO_ROOM, NO_KERNEL = "out of memory", "not available"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser, ("text", "batch", "prune_layer"), attn=False)
    parser.add_argument(
        "--attns", default="eager,sdpa", help=f"kernels, a list of {', '.join(ATTENTIONS)} (eager,sdpa)"
    )
    parser.add_argument("--visuals", default="256,1024", help="visual tokens of an image, a list (256,1024)")
    add_new_tokens(parser)


def run(options: argparse.Namespace) -> BenchReport:
    """Measures everything."""
    check_at_least(2, options, ("new_tokens",))
    by_kernel = {name: setups_of(options, name) for name in options.attns.split(",")}
    cells = {name: measure_kernel(setups, options.new_tokens) for name, setups in by_kernel.items()}
    first = next(iter(by_kernel.values()))[0]
    return summarize(first, cells, options.new_tokens)


def setups_of(options: argparse.Namespace, kernel: str) -> list[Setup]:
    """One for each number of visual tokens; OptionError for what cannot be."""
    visuals = read_numbers("--visuals", options.visuals)
    return [read_setup(argparse.Namespace(**vars(options), attn=kernel, visual=visual)) for visual in visuals]


def measure_kernel(setups: list[Setup], new_tokens: int) -> dict[int, Cell | str]:
    """Visual tokens -> figures, or why there are none."""
    try:
        model = setups[0].model()
    except OptionError as error:
        print(error, file=sys.stderr)
        return {setup.preset.visual: NO_KERNEL for setup in setups}
    return {setup.preset.visual: _measure_or_say_why(setup, model, new_tokens) for setup in setups}


def _measure_or_say_why(setup: Setup, model: GlimpseModel, new_tokens: int) -> Cell | str:
    try:
        cell = measure(setup, model, new_tokens)
        rows = "; ".join(f"{way}: {' '.join(filter(None, _figures(cell, way)))}" for way in WAYS)
        # is there if we are killed
        print(f"{setup.attn}, {setup.preset.visual} visual tokens: {rows}", file=sys.stderr)
        return cell
    except torch.OutOfMemoryError:
        print(f"\n{setup.attn}, {setup.preset.visual} visual tokens: {NO_ROOM}", file=sys.stderr)
        return NO_ROOM
    finally:
        free_memory()


def measure(setup: Setup, model: GlimpseModel, new_tokens: int) -> Cell:
    """Seconds of both ways in every round, and their memory.

    Raises:
        torch.OutOfMemoryError: the device has not enough of it.
    """
    what = f"{setup.attn}, {setup.preset.visual} visual tokens"
    inputs = random_inputs(setup.preset, setup.device)
    prefills = {
        UNPRUNED: partial(model.prefill, inputs, "none"),
        PRUNED: partial(model.prefill, inputs, "glimpse", setup.prune_options),
    }
    prefill_s = interleaved(prefills, setup.repeats, setup.device, f"{what}, prefills")
    memory = {}
    for way in WAYS if setup.device.startswith("cuda") else ():
        free_memory()
        memory[way] = memory_of_prompt(model, inputs["input_ids"], prefills[way], new_tokens)
    generations = {way: partial(generate, model, inputs["input_ids"], prefills[way](), new_tokens) for way in WAYS}
    generation_s = interleaved(generations, setup.repeats, setup.device, f"{what}, generations")
    token_s = {way: [value / (new_tokens - 1) for value in values] for way, values in generation_s.items()}
    pruned, unpruned = (total(costs).flops for costs in prefill_costs(setup, cost_model(setup)))
    return {"prefill_s": prefill_s, "token_s": token_s, "prefill_bound": unpruned / pruned, "memory_mib": memory}


def summarize(setup: Setup, cells: dict[str, dict[int, Cell | str]], new_tokens: int) -> BenchReport:
    """One row a kernel, length and way; ratios are of the un-pruned way to the pruned one."""
    preset = setup.preset
    model = f"{preset.layers} layers of {preset.hidden}, batch {preset.batch}, {preset.text} text tokens"
    title = f"{model}; {100 * setup.keep_ratio:g} % kept after layer {preset.prune_layer}; {new_tokens} new tokens"
    has_memory = setup.device.startswith("cuda")
    table = TextTable(title, (*COLUMNS, *(MEMORY_COLUMNS if has_memory else ())))
    for kernel, by_length in cells.items():
        for visual, cell in by_length.items():
            if isinstance(cell, str):
                table.add(kernel, str(visual), cell, *[""] * (len(table.columns) - 3))
                continue
            for way in WAYS:
                table.add(kernel, str(visual), way, *_figures(cell, way))
    where = {**environment(setup), "attn": ", ".join(cells)}
    return BenchReport(where, {"cells": cells}, [table])


def _figures(cell: Cell, way: str) -> list[str]:
    prefill, token = (f"{1e3 * Spread.from_values(cell[part][way]).median:.1f}" for part in ("prefill_s", "token_s"))
    memory = [f"{cell['memory_mib'][way][part]:,.0f}" for part in ("prefill", "decode") if way in cell["memory_mib"]]
    if way == UNPRUNED:
        return [prefill, "", "", token, "", *memory]
    faster = [f"{_faster(cell[part]):.2f}" for part in ("prefill_s", "token_s")]
    return [prefill, faster[0], f"{cell['prefill_bound']:.2f}", token, faster[1], *memory]


def _faster(seconds: dict[str, list[float]]) -> float:
    return ratio(seconds[UNPRUNED], seconds[PRUNED]).median


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
