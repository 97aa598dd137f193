"""Decoding: a token's time and memory behind a pruned prompt, an un-pruned one, and one that was short from the start.

The short prompt's image has as many visual tokens as the pruned one kept. Time: transformers' `generate` behind each
finished prefill, in turn in one process, per token; with --compile also with the compiled step. Memory: each way in a
process of its own; what prompt and generation hold at their peak above the model and the batch. The bound is the ratio
of bytes that a token must read: weights and cache.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gp.bench.options import Setup, check_at_least, read_setup
from gp.bench.options import add_arguments as add_shared_arguments
from gp.bench.own_process import add_way_argument, in_own_process, or_nan
from gp.bench.prefill import cost_model
from gp.bench.presets import near_square, random_inputs
from gp.bench.report import BenchReport, SpeedUps, TextTable, environment, time_cells, workload
from gp.bench.rounds import interleaved
from gp.engine.prefill import Prefill
from gp.measure.peak_memory import MIB, PeakMemory
from gp.measure.spread import Spread, ratio
from gp.model import GlimpseModel

PRUNED, UNPRUNED, SHORT = "pruned", "un-pruned", "short from the start"
WAYS = (UNPRUNED, PRUNED, SHORT)
COMPILED = {f"{way}, compiled": way for way in (UNPRUNED, PRUNED)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser, ("visual", "text", "batch", "prune_layer"))
    add_new_tokens(parser)
    add_compile(parser)
    add_way_argument(parser, WAYS)


def add_new_tokens(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--new-tokens", type=int, default=32, help="generated tokens, at least 2 (32)")


def add_compile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--compile", action="store_true", help="decode with the compiled step (gp.engine.compiled), too"
    )


def run(options: argparse.Namespace) -> BenchReport | None:
    """Measures everything, or prints the figures of one way if told to."""
    setup = read_setup(options)
    check_at_least(2, options, ("new_tokens",))  # the first comes from the prefill
    if options.memory_of:
        print(json.dumps(measure_memory_mib(setup, options.memory_of, options.new_tokens)))
        return None
    model = setup.model()
    ways = make_ways(setup, model, options.new_tokens, options.compile)
    warm_up = compare_ids(ways) if options.compile else {}
    seconds = measure_step_s(setup, ways, options.new_tokens)
    del model, ways
    memory_mib = {way: in_own_process(options.arguments, way) for way in WAYS}
    return summarize(setup, options.new_tokens, seconds, memory_mib, warm_up)


def generate(
    model: GlimpseModel,
    input_ids: Tensor,
    done: Prefill,
    new_tokens: int,
    consume: bool = False,
    compiled: bool = False,
) -> Any:
    """Greedy, exactly so many tokens."""
    exactly = {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
    return model.decode(input_ids, done, consume, compiled, do_sample=False, **exactly)


def make_ways(setup: Setup, model: GlimpseModel, new_tokens: int, compiled: bool) -> dict[str, Callable[[], Any]]:
    """What generates behind each finished prefill; a compiled way shares its prefill with the plain one."""
    ways: dict[str, Any] = {}
    for way in WAYS:
        input_ids, finish = _prompt(setup, model, way)
        ways[way] = partial(generate, model, input_ids, finish(), new_tokens)
    if compiled:
        ways |= {name: partial(ways[way], compiled=True) for name, way in COMPILED.items()}
    return ways


def compare_ids(ways: dict[str, Callable[[], Any]]) -> dict[str, dict[str, Any]]:
    """Runs each compiled way once: seconds until its ids are there, graphs compiled, share of equal ids."""
    found = {}
    for name, way in COMPILED.items():
        before, start = graphs_compiled(), time.perf_counter()
        ids = ways[name]().tolist()
        first_s = time.perf_counter() - start
        same = [mine == theirs for row, plain in zip(ids, ways[way]().tolist()) for mine, theirs in zip(row, plain)]
        found[name] = {"first_s": first_s, "graphs": graphs_compiled() - before, "same_ids": sum(same) / len(same)}
    return found


def graphs_compiled() -> int:
    """Graphs that this process has compiled so far."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def measure_step_s(setup: Setup, ways: dict[str, Callable[[], Any]], new_tokens: int) -> dict[str, list[float]]:
    """Seconds per token, of every round of each way."""
    seconds = interleaved(ways, setup.repeats, setup.device, "generations")
    return {way: [value / (new_tokens - 1) for value in values] for way, values in seconds.items()}


def measure_memory_mib(setup: Setup, way: str, new_tokens: int) -> dict[str, float]:
    """Memory above model and batch, MiB: `prefill` and `decode` peaks, `held` between them; in a fresh process."""
    model = setup.model()
    small = replace(setup, preset=replace(setup.preset, visual=4, batch=1), keep_ratio=0.5)
    input_ids, finish = _prompt(small, model, way)
    generate(model, input_ids, finish(), 2)  # kernels and libraries are loaded now
    return memory_of_prompt(model, *_prompt(setup, model, way), new_tokens)


def memory_of_prompt(
    model: GlimpseModel, input_ids: Tensor, prefill: Callable[[], Prefill], new_tokens: int
) -> dict[str, float]:
    """Memory above what is in use before the prefill, MiB: `prefill` and `decode` peaks, `held` between them."""
    gc.collect()
    memory = PeakMemory(model.backbone.device)
    done = prefill()
    gc.collect()
    figures = {"prefill": or_nan(memory.above_mib()), "held": or_nan(memory.held_mib())}
    decoding = PeakMemory(model.backbone.device)
    generate(model, input_ids, done, new_tokens, consume=True)  # as `model.generate` does
    return {**figures, "decode": figures["held"] + or_nan(decoding.above_mib())}


def summarize(
    setup: Setup,
    new_tokens: int,
    seconds: dict[str, list[float]],
    memory_mib: dict[str, dict[str, float]],
    warm_up: dict[str, dict[str, Any]],
) -> BenchReport:
    """Tables and figures; ratios are of the un-pruned prompt to the others, and of a plain step to a compiled one.

    Args:
        warm_up: of `compare_ids`, if steps were compiled.
    """
    preset, cost = setup.preset, cost_model(setup)
    lengths = {UNPRUNED: preset.text + preset.visual, PRUNED: preset.text + setup.kept}
    lengths[SHORT] = lengths[PRUNED]
    title = f"Decoding {new_tokens} tokens, {workload(setup)}; {setup.kept} kept"
    memory = ("cache, MiB", "held after prefill, MiB", "decode peak, MiB", "prefill peak, MiB")
    steps = TextTable(title, ("prompt", "ms per token", "quartiles", *memory))
    ratios = SpeedUps("Speed-up of a token")
    figures: dict[str, Any] = {"ways": {}, "against_unpruned": {}}
    step_bytes = {way: cost.decode(preset.batch, length + new_tokens // 2).bytes for way, length in lengths.items()}
    for way in WAYS:
        spread, used = Spread.from_values(seconds[way]), memory_mib[way]
        cache_mib = cost.cache_bytes(preset.batch, lengths[way]) / MIB
        peaks = [cache_mib, used["held"], used["decode"], used["prefill"]]
        steps.add(way, *time_cells(spread), *(f"{value:.1f}" for value in peaks))
        figures["ways"][way] = {"step_s": spread, "bytes": step_bytes[way], "cache_mib": cache_mib, "memory_mib": used}
        if way != UNPRUNED:
            speed_up, bound = ratio(seconds[UNPRUNED], seconds[way]), step_bytes[UNPRUNED] / step_bytes[way]
            figures["against_unpruned"][way] = ratios.compare(f"{UNPRUNED} / {way}", speed_up, bound)
    tables = [steps, ratios]
    if warm_up:
        tables.append(_add_compiled(figures, ratios, seconds, warm_up))
    return BenchReport(environment(setup), figures, tables)


def _add_compiled(
    figures: dict[str, Any], ratios: SpeedUps, seconds: dict[str, list[float]], warm_up: dict[str, dict[str, Any]]
) -> TextTable:
    """Adds what compiling is worth: the bound is 1, because it reads the same bytes; returns a table of its own."""
    table = TextTable(
        "The compiled step", ("prompt", "ms per token", "quartiles", "first call, s", "graphs", "same ids")
    )
    figures["compiled"] = {}
    for name, way in COMPILED.items():
        spread, first = Spread.from_values(seconds[name]), warm_up[name]
        same = f"{100 * first['same_ids']:.1f} %"
        table.add(name, *time_cells(spread), f"{first['first_s']:.0f}", str(first["graphs"]), same)
        faster = ratios.compare(f"{way} / {name}", ratio(seconds[way], seconds[name]), 1.0)
        figures["compiled"][way] = {"step_s": spread, **first, "against_plain": faster}
    return table


def _prompt(setup: Setup, model: GlimpseModel, way: str) -> tuple[Tensor, Callable[[], Prefill]]:
    """A way's ids, and what makes its prefill."""
    grid = near_square(setup.kept) if way == SHORT else setup.preset.grid
    inputs = random_inputs(setup.preset, setup.device, grid)
    pruner = "glimpse" if way == PRUNED else "none"
    options = setup.prune_options if way == PRUNED else None
    return inputs["input_ids"], partial(model.prefill, inputs, pruner, options)
