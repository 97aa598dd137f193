"""Prefill: pruned by the glimpse to a given ratio against un-pruned, and where the pruned one's time goes.

Both in turn in one process, with the vision tower and without it (images seen before). The bound is the ratio of
floating-point operations, the glimpse's own included, so that what is missing is overhead. The stages are timed in
runs of their own, on a GPU by events in its queue. Host syncs are calls that wait for the device, counted by line of
code in one pruned prefill of what the processor left on the host.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gp.bench.cost import CostModel, Work, total
from gp.bench.host_syncs import HostSyncs
from gp.bench.options import OptionError, Setup, read_setup
from gp.bench.options import add_arguments as add_shared_arguments
from gp.bench.presets import TEXT_AROUND_IMAGE, random_inputs
from gp.bench.report import BenchReport, SpeedUps, TextTable, environment, time_cells, workload
from gp.bench.rounds import in_turn, interleaved, show_round
from gp.bench.timeline import Timeline
from gp.engine.conversation import Conversation
from gp.measure.spread import Spread, ratio
from gp.measure.stopwatch import timed_s
from gp.model import GlimpseModel
from gp.types import PruneOptions

PRUNED, UNPRUNED = "pruned", "un-pruned"
WITH, WITHOUT = "with the vision tower", "without the vision tower"
PACKAGES = ("gp", "transformers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser, ("visual", "text", "batch", "prune_layer", "twig"))
    parser.add_argument("--turns", type=int, default=1, help="2: also a second question about the same image (1)")


def run(options: argparse.Namespace) -> BenchReport:
    """Measures everything."""
    setup = read_setup(options)
    if options.turns not in (1, 2):
        raise OptionError(f"--turns must be 1 or 2, got {options.turns}")
    model, inputs = setup.model(), random_inputs(setup.preset, setup.device)
    cost = cost_model(setup)
    seconds = interleaved(ways(setup, model, inputs), setup.repeats, setup.device, "prefills")
    stages = measure_stages(setup, model, inputs)
    syncs = count_host_syncs(model, inputs)
    report = BenchReport(environment(setup))
    _add_speed(report, setup, cost, seconds)
    _add_stages(report, setup, cost, stages)
    _add_syncs(report, syncs)
    if options.turns == 2:
        add_second_turn(report, setup, model, cost)
    return report


def add_second_turn(report: BenchReport, setup: Setup, model: GlimpseModel, cost: CostModel) -> None:
    """A second question of as many tokens as the first one, against the first question and a fresh prompt of both."""
    preset, one_row = setup.preset, replace(setup.preset, batch=1)
    first = random_inputs(one_row, setup.device)
    question = first["input_ids"][:, -(preset.text - TEXT_AROUND_IMAGE) :]
    both = {**first, "input_ids": torch.cat([first["input_ids"], question], dim=1)}
    both["attention_mask"] = torch.ones_like(both["input_ids"])
    both["mm_token_type_ids"] = torch.cat([first["mm_token_type_ids"], torch.zeros_like(question).int()], dim=1)

    def one_turn() -> float:
        talk = Conversation(model.backbone, model.find_pruner("glimpse"))
        return timed_s(lambda: talk.turn(first, setup.prune_options), setup.device)

    def two_turns() -> float:
        talk = Conversation(model.backbone, model.find_pruner("glimpse"))
        talk.turn(first, setup.prune_options)
        return timed_s(lambda: talk.turn(both, setup.prune_options), setup.device)

    def fresh() -> float:
        return timed_s(lambda: model.prefill(both, "glimpse", setup.prune_options), setup.device)

    seconds = in_turn({"first": one_turn, "second": two_turns, "fresh": fresh}, setup.repeats, "turns")
    text = both["input_ids"].shape[1] - preset.visual
    flops = {
        "first": total(cost.prefill([preset.grid], preset.text, [setup.kept])).flops,
        "second": total(cost.next_turn(preset.grid, text, question.shape[1], setup.kept)).flops,
        "fresh": total(cost.prefill([preset.grid], text, [setup.kept])).flops,
    }
    table = SpeedUps("A conversation's second question, with the vision tower")
    report.figures["turns"] = {"seconds": {way: Spread.from_values(values) for way, values in seconds.items()}}
    for way, what in (("first", "against the first question"), ("fresh", "against both turns as a fresh prompt")):
        speed_up = ratio(seconds[way], seconds["second"])
        report.figures["turns"][way] = table.compare(what, speed_up, flops[way] / flops["second"])
    report.tables.append(table)


def cost_model(setup: Setup) -> CostModel:
    preset = setup.preset
    return CostModel(preset.config, preset.glimpse, preset.vip, setup.dtype.itemsize, setup.attn != "eager")


def prefill_costs(setup: Setup, cost: CostModel) -> tuple[dict[str, Work], dict[str, Work]]:
    """Stage -> cost, pruned and un-pruned."""
    preset = setup.preset
    work = ([preset.grid] * preset.batch, preset.text)
    return cost.prefill(*work, kept=[setup.kept] * preset.batch), cost.prefill(*work)


def ways(setup: Setup, model: GlimpseModel, inputs: dict[str, Tensor]) -> dict[str, Callable[[], Any]]:
    """Calls to time, by name."""
    images = model.see(inputs, ["glimpse"])
    runs: dict[str, Callable[[], Any]] = {}
    for part, seen in ((WITH, None), (WITHOUT, images)):
        runs[f"{UNPRUNED} {part}"] = partial(model.prefill, inputs, "none", images=seen)
        runs[f"{PRUNED} {part}"] = partial(model.prefill, inputs, "glimpse", setup.prune_options, images=seen)
    return runs


def measure_stages(setup: Setup, model: GlimpseModel, inputs: dict[str, Tensor]) -> dict[str, Spread]:
    """Stage -> seconds in a pruned prefill."""
    rounds: list[dict[str, float]] = []
    for number in range(setup.repeats):
        timeline = Timeline(model.backbone, model.find_pruner("glimpse"), setup.device)
        with timeline.watching() as seconds:
            model.prefill(inputs, "glimpse", setup.prune_options)
        rounds.append(seconds)
        show_round("stages", number + 1, setup.repeats)
    names = dict.fromkeys(name for seconds in rounds for name in seconds)
    return {name: Spread.from_values([seconds.get(name, 0.0) for seconds in rounds]) for name in names}


def count_host_syncs(model: GlimpseModel, inputs: dict[str, Tensor]) -> HostSyncs:
    """Counts those of a prefill pruned by a threshold: an exact budget, as timed here, tells the host what is kept."""
    copies = {key: value.clone() for key, value in inputs.items()}  # what is noted on them goes with them
    with HostSyncs(host=copies.values()) as syncs:
        model.prefill(copies, "glimpse", PruneOptions())
    return syncs


def _add_speed(report: BenchReport, setup: Setup, cost: CostModel, seconds: dict[str, list[float]]) -> None:
    title = f"Prefill, {workload(setup)}; {setup.kept} kept after layer {setup.preset.prune_layer}"
    times = TextTable(title, ("way", "ms", "quartiles"))
    ratios = SpeedUps("Speed-up by pruning")
    figures = report.figures
    figures["prefill_s"] = {way: Spread.from_values(values) for way, values in seconds.items()}
    figures["prefill"] = {}
    for way, values in seconds.items():
        times.add(way, *time_cells(Spread.from_values(values)))
    pruned, unpruned = prefill_costs(setup, cost)
    for part in (WITH, WITHOUT):
        speed_up = ratio(seconds[f"{UNPRUNED} {part}"], seconds[f"{PRUNED} {part}"])
        left_out = Work() if part == WITH else pruned["vision"]
        before, after = (total(stages).flops - left_out.flops for stages in (unpruned, pruned))
        figures["prefill"][part] = ratios.compare(part, speed_up, before / after)
    report.tables += [times, ratios]


def _add_stages(report: BenchReport, setup: Setup, cost: CostModel, seconds: dict[str, Spread]) -> None:
    costs, _ = prefill_costs(setup, cost)
    whole_s = sum(spread.median for spread in seconds.values())
    whole_flops = total(costs).flops
    table = TextTable(
        "Where a pruned prefill's time goes", ("stage", "ms", "share of time", "share of FLOPs", "GFLOP/s")
    )
    report.figures["stages"] = {}
    for stage, spread in seconds.items():
        flops = costs[stage].flops if stage in costs else 0
        rate = f"{flops / spread.median / 1e9:.0f}" if flops and spread.median else ""
        shares = (f"{100 * spread.median / whole_s:.1f} %", f"{100 * flops / whole_flops:.1f} %")
        table.add(stage, time_cells(spread)[0], *shares, rate)
        report.figures["stages"][stage] = {"seconds": spread, "flops": flops}
    report.tables.append(table)


def _add_syncs(report: BenchReport, syncs: HostSyncs) -> None:
    table = TextTable("Host syncs of a prefill pruned by a threshold", ("line", "calls"))
    for place, count in sorted(syncs.calls.items(), key=lambda item: -item[1]):
        table.add(place, str(count))
    counts = {package: syncs.in_package(package) for package in PACKAGES}
    table.add("all", ", ".join(f"{count} in {package}" for package, count in counts.items()))
    report.tables.append(table)
    report.figures["host_syncs"] = {"by_line": dict(syncs.calls), **counts}
