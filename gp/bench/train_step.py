"""One training step: a prefix without gradients, against the whole sequence under autograd.

All ways give the same loss and the same gradients (tested). `prefix, kept` does not run the layers of glimpse and
answer again (`trainer.recompute=never`); with --compile, `prefix, compiled` runs them as one graph
(`trainer.compile=true`), which the first step compiles. `whole, checkpointed` keeps only the layers' inputs and runs
each layer again in the backward pass. Time: forward and backward of the ways in turn in one process. Memory: each way
in a process of its own; the peak of its second step above what model, batch and libraries take (on a CPU the resident
set's high-water mark, on a GPU what torch allocated), beside what the bill of `memory` expects. The bound is the ratio
of floating-point operations.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gp.backbones import Backbone
from gp.bench.bill import COMPILED, KEPT, step_mib
from gp.bench.cost import CostModel
from gp.bench.decode import graphs_compiled
from gp.bench.options import Setup, read_setup
from gp.bench.options import add_arguments as add_shared_arguments
from gp.bench.own_process import add_way_argument, in_own_process, peak_of
from gp.bench.presets import random_answers, random_inputs
from gp.bench.report import BenchReport, SpeedUps, TextTable, environment, time_cells, workload
from gp.bench.rounds import interleaved
from gp.bench.whole_sequence import whole_sequence
from gp.config import LossConfig
from gp.engine.compiled_suffix import CompiledSuffix
from gp.engine.teacher_forcing import TeacherForced, teacher_forced
from gp.measure.spread import Spread, ratio
from gp.model import GlimpseModel
from gp.pruners import GlimpsePruner
from gp.training.objective import batch_sums, kept_counts, step_loss

_COMPILED: WeakKeyDictionary[Backbone, CompiledSuffix] = WeakKeyDictionary()


def compiled_suffix(
    backbone: Backbone, pruner: GlimpsePruner, inputs: Mapping[str, Tensor], answer_ids: Tensor, answer_mask: Tensor
) -> TeacherForced:
    """`teacher_forced` with a graph that later steps of the same base run, too."""
    if backbone not in _COMPILED:
        _COMPILED[backbone] = CompiledSuffix(backbone)
    return teacher_forced(backbone, pruner, inputs, answer_ids, answer_mask, compiled=_COMPILED[backbone])


WAYS: dict[str, Callable] = {
    "prefix": teacher_forced,
    KEPT: partial(teacher_forced, recompute=False),
    "whole": whole_sequence,
    "whole, checkpointed": partial(whole_sequence, checkpointed=True),
}
ALL_WAYS: dict[str, Callable] = {**WAYS, COMPILED: compiled_suffix}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser, ("visual", "text", "answer", "batch"), keep_ratio=False)
    parser.add_argument("--compile", action="store_true", help="also a step whose suffix is compiled")
    add_way_argument(parser, ALL_WAYS)


def run(options: argparse.Namespace) -> BenchReport | None:
    """Measures everything, or prints the figures of one way if told to."""
    setup = read_setup(options)
    if options.memory_of:
        print(json.dumps(measure_memory_mib(setup, options.memory_of)))
        return None
    ways = list(ALL_WAYS if options.compile else WAYS)
    before = graphs_compiled()
    seconds = measure_time_s(setup, ways)
    graphs = graphs_compiled() - before
    memory_mib = {way: in_own_process(options.arguments, way) for way in ways}
    return summarize(setup, seconds, memory_mib, graphs)


def step(model: GlimpseModel, batch: tuple, way: str) -> None:
    """Forward and backward of one training step, mixed with float32 as Lightning does it; gradients are dropped."""
    inputs, (answer_ids, answer_mask, evidence_masks) = batch
    dtype, kind = model.backbone.dtype, model.backbone.device.type
    with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
        forced = ALL_WAYS[way](model.backbone, model.glimpse, inputs, answer_ids, answer_mask)
        sums = batch_sums(forced, evidence_masks, answer_ids, answer_mask, kept_counts(forced, model.options))
    step_loss(sums, LossConfig())[0].backward.backward()
    model.zero_grad()


def measure_time_s(setup: Setup, ways: Sequence[str]) -> dict[str, list[float]]:
    """Seconds of every measured step of each way."""
    model, batch = setup.model(training=True), _batch(setup)
    steps = {way: partial(step, model, batch, way) for way in ways}
    return interleaved(steps, setup.repeats, setup.device, "training steps")


def measure_memory_mib(setup: Setup, way: str) -> float:
    """Peak of a step above model, batch and libraries, MiB; to be run in a fresh process."""
    small = replace(setup, preset=replace(setup.preset, visual=4, text=4, answer=1, batch=1))
    model, batch = setup.model(training=True), _batch(setup)
    step(model, _batch(small), way)  # kernels and libraries are loaded now
    return peak_of(partial(step, model, batch, way), setup.device)


def summarize(
    setup: Setup, seconds: dict[str, list[float]], memory_mib: dict[str, float], graphs: int = 0
) -> BenchReport:
    """Tables and figures; a ratio above 1 says how many times more another way takes than the prefix."""
    bill = {way: step_mib(setup.preset, setup.dtype.itemsize, setup.attn, way) for way in seconds}
    flops = step_flops(setup)
    title = f"Training step, {workload(setup)}, {setup.preset.answer} answer tokens"
    steps = TextTable(title, ("way", "step, ms", "quartiles", "GFLOP", "peak above the model, MiB", "bill, MiB"))
    ratios = SpeedUps("Speed-up of the prefix")
    figures: dict[str, Any] = {"ways": {}, "against": {}, "graphs": graphs}
    for way in seconds:
        spread = Spread.from_values(seconds[way])
        peak = memory_mib[way]
        cells = (f"{flops[way] / 1e9:.0f}", f"{peak:.0f}", f"{bill[way]:.0f}")
        steps.add(way, *time_cells(spread), *cells)
        figures["ways"][way] = {"step_s": spread, "flops": flops[way], "peak_mib": peak, "bill_mib": bill[way]}
        if way == "prefix":
            continue
        speed_up, bound = ratio(seconds[way], seconds["prefix"]), flops[way] / flops["prefix"]
        memory_ratio = peak / max(memory_mib["prefix"], 1e-9)
        figures["against"][way] = {**ratios.compare(f"{way} / prefix", speed_up, bound), "memory_ratio": memory_ratio}
    return BenchReport(environment(setup), figures, [steps, ratios])


def step_flops(setup: Setup) -> dict[str, int]:
    """Operations of each way, from the cost model."""
    preset = setup.preset
    cost = CostModel(preset.config, preset.glimpse, preset.vip, causal_half=setup.attn != "eager")
    work = ([preset.grid] * preset.batch, preset.text, preset.answer)
    return {
        "prefix": cost.prefix_step(*work),
        KEPT: cost.prefix_step(*work, recompute=False),
        COMPILED: cost.prefix_step(*work, recompute=False),
        "whole": cost.whole_step(*work),
        "whole, checkpointed": cost.whole_step(*work, checkpointed=True),
    }


def _batch(setup: Setup) -> tuple:
    return random_inputs(setup.preset, setup.device), random_answers(setup.preset, setup.device)
