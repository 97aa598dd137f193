"""What wrapping costs: un-pruned `generate` through gp against the stock model's own, in turn, ids compared."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch

from gp.bench.decode import add_new_tokens
from gp.bench.options import Setup, add_model_arguments, add_repeats, check_at_least, read_setup
from gp.bench.options import add_device as add_device_argument
from gp.bench.presets import random_inputs
from gp.bench.report import BenchReport, TextTable, environment, time_cells, workload
from gp.bench.rounds import interleaved
from gp.measure.spread import Spread, ratio

STOCK, WRAPPED = "stock", "through gp, un-pruned"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, "mid", ("visual", "text", "batch"))
    add_repeats(parser, 9)
    add_device_argument(parser)
    add_new_tokens(parser)


def run(options: argparse.Namespace) -> BenchReport:
    """Measures both ways.

    Raises:
        RuntimeError: they do not give the same ids.
    """
    setup = read_setup(options)
    check_at_least(2, options, ("new_tokens",))
    return summarize(setup, options.new_tokens, measure_s(setup, options.new_tokens))


def measure_s(setup: Setup, new_tokens: int) -> dict[str, list[float]]:
    """Seconds of a call, vision tower and prefill included, in every round of each way."""
    model, inputs = setup.model(), random_inputs(setup.preset, setup.device)
    how: dict[str, Any] = {**inputs, "do_sample": False, "min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
    ways = {STOCK: partial(model.base.generate, **how), WRAPPED: partial(model.generate, **how, pruner="none")}
    ids = [way() for way in ways.values()]
    if not torch.equal(*ids):
        raise RuntimeError("stock and un-pruned generate gave other ids: nothing to compare")
    return interleaved(ways, setup.repeats, setup.device, "generations")


def summarize(setup: Setup, new_tokens: int, seconds: dict[str, list[float]]) -> BenchReport:
    """A row for each way, the times relative to stock round by round."""
    table = TextTable(
        f"generate, {new_tokens} tokens, {workload(setup)}",
        ("way", "ms", "quartiles", "time / stock", "quartiles of it"),
    )
    figures: dict[str, Any] = {"ways": {}, "against_stock": ratio(seconds[WRAPPED], seconds[STOCK])}
    for way, values in seconds.items():
        spread, relative = Spread.from_values(values), ratio(values, seconds[STOCK])
        quartiles = f"{relative.low:.3f} .. {relative.high:.3f}"
        table.add(way, *time_cells(spread), f"{relative.median:.3f}", quartiles)
        figures["ways"][way] = {"generate_s": spread}
    return BenchReport(environment(setup), figures, [table])
