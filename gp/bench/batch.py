"""Throughput by batch size: un-pruned, pruned to equal numbers, and pruned to numbers that differ from row to row.

Rows of a batch that keep different numbers are padded to the longest, which costs time and cache. `uneven` spreads the
kept numbers from about none to twice the mean; `equal` gives every row the mean. All three in turn in one process, at
each batch size: prompts per second of the prefill (vision tower included), tokens per second of `generate` behind
it. The bound is the ratio of floating-point operations for the prefill and of bytes read for a token.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from typing import Any

from gp.bench.cost import total
from gp.bench.decode import add_compile, add_new_tokens, generate
from gp.bench.options import Setup, check_at_least, read_numbers, read_setup
from gp.bench.options import add_arguments as add_shared_arguments
from gp.bench.prefill import cost_model
from gp.bench.presets import random_inputs, spread_counts
from gp.bench.report import BenchReport, SpeedUps, TextTable, environment
from gp.bench.rounds import interleaved
from gp.measure.spread import Spread, ratio
from gp.model import GlimpseModel
from gp.types import PruneOptions

UNPRUNED, EQUAL, UNEVEN = "un-pruned", "equal", "uneven"
WAYS = (UNPRUNED, EQUAL, UNEVEN)
PREFILL, DECODE, COMPILED_DECODE = "prefill", "decode", "compiled decode"
COMPILED = ", compiled"
PAIRS = ((UNPRUNED, UNEVEN), (UNEVEN, EQUAL))  # what pruning saves, and what padding costs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser, ("visual", "text", "prune_layer"))
    parser.add_argument("--batch-sizes", default="1,2,4,8", help="prompts, a list with commas (1,2,4,8)")
    add_new_tokens(parser)
    add_compile(parser)


def run(options: argparse.Namespace) -> BenchReport:
    """Measures everything."""
    setup = read_setup(options)
    sizes = read_numbers("--batch-sizes", options.batch_sizes)
    check_at_least(2, options, ("new_tokens",))
    model = setup.model()
    seconds = {size: measure(setup, model, size, options.new_tokens, options.compile) for size in sizes}
    return summarize(setup, options.new_tokens, seconds, options.compile)


def kept_numbers(setup: Setup, size: int) -> dict[str, tuple[int, ...] | None]:
    """Visual tokens that each row keeps; None: all."""
    uneven = tuple(spread_counts(setup.kept, setup.preset.visual, size))
    return {UNPRUNED: None, EQUAL: (setup.kept,) * size, UNEVEN: uneven}


def measure(
    setup: Setup, model: GlimpseModel, size: int, new_tokens: int, compiled: bool = False
) -> dict[str, dict[str, list[float]]]:
    """Seconds of the prefill and of the generation behind it, by way, at one batch size.

    Args:
        compiled: each generation is measured with the compiled step, too.
    """
    inputs = random_inputs(replace(setup.preset, batch=size), setup.device)
    prefills, generations = {}, {}
    for way, kept in kept_numbers(setup, size).items():
        options = PruneOptions() if kept is None else PruneOptions(num_keep=kept, min_kept=0)
        prefills[way] = partial(model.prefill, inputs, "none" if kept is None else "glimpse", options)
        generations[way] = partial(generate, model, inputs["input_ids"], prefills[way](), new_tokens)
    plain = dict(generations)
    if compiled:
        generations |= {f"{way}{COMPILED}": partial(run, compiled=True) for way, run in plain.items()}
    times = interleaved(generations, setup.repeats, setup.device, f"batch {size}, generations")
    measured = {
        PREFILL: interleaved(prefills, setup.repeats, setup.device, f"batch {size}, prefills"),
        DECODE: {way: times[way] for way in plain},
    }
    return {**measured, COMPILED_DECODE: {way: times[f"{way}{COMPILED}"] for way in plain}} if compiled else measured


def summarize(
    setup: Setup, new_tokens: int, seconds: dict[int, dict[str, dict[str, list[float]]]], compiled: bool = False
) -> BenchReport:
    """Tables and figures of all batch sizes; with `compiled` of both ways to decode, and one against the other."""
    model = f"{setup.preset.layers} layers of {setup.preset.hidden}, {setup.preset.visual} visual"
    title = f"Throughput, {model} + {setup.preset.text} text tokens; {setup.kept} kept on average"
    rates = TextTable(title, ("batch", "rows", "padding", "prompts per second", "tokens per second"))
    ratios = SpeedUps("Time saved by pruning, and lost by padding")
    figures: dict[str, Any] = {"batches": {}}
    for size, measured in seconds.items():
        entry: dict[str, Any] = {"rows": {}, "ratios": {}}
        for way, kept in kept_numbers(setup, size).items():
            prompts = size / Spread.from_values(measured[PREFILL][way]).median
            tokens = size * (new_tokens - 1) / Spread.from_values(measured[DECODE][way]).median
            padding = padded_share(setup, kept)
            rates.add(str(size), way, f"{100 * padding:.0f} %", f"{prompts:.2f}", f"{tokens:.1f}")
            entry["rows"][way] = {"kept": kept, "padding": padding, "prompts_per_s": prompts, "tokens_per_s": tokens}
        for slow, fast in PAIRS:
            for part in measured:
                speed_up = ratio(measured[part][slow], measured[part][fast])
                bound = _work(setup, size, slow, part, new_tokens) / _work(setup, size, fast, part, new_tokens)
                what = f"{part}: {slow} / {fast}"
                entry["ratios"][what] = ratios.compare(f"batch {size}, {what}", speed_up, bound)
        for way in WAYS if compiled else ():
            speed_up = ratio(measured[DECODE][way], measured[COMPILED_DECODE][way])
            what = f"decode, {way}: plain / compiled"
            entry["ratios"][what] = ratios.compare(f"batch {size}, {what}", speed_up, 1.0)
        figures["batches"][size] = entry
    return BenchReport(environment(setup), figures, [rates, ratios])


def padded_share(setup: Setup, kept: tuple[int, ...] | None) -> float:
    """Share of padding among the positions behind the pruning, 0..1."""
    if kept is None:
        return 0.0
    lengths = [setup.preset.text + count for count in kept]
    return 1 - sum(lengths) / (len(lengths) * max(lengths))


def _work(setup: Setup, size: int, way: str, part: str, new_tokens: int) -> int:
    """Operations of a prefill, or bytes of a token, in the cost model."""
    cost, preset, kept = cost_model(setup), setup.preset, kept_numbers(setup, size)[way]
    if part == PREFILL:
        return total(cost.prefill([preset.grid] * size, preset.text, kept)).flops
    longest = preset.visual if kept is None else max(kept)
    return cost.decode(size, preset.text + longest + new_tokens // 2).bytes
