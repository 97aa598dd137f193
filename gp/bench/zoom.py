"""Zoom: a prefill that sees a small copy and a part of the image against un-pruned, pruned and downsampled ones.

All in turn in one process, the vision tower included. The copy's kept tokens and the crop's size are given, so that the
method's cost is measured, not what a random model would look at. `downsample` sees as many tokens as zoom does (copy
and crop). The bound is the ratio of floating-point operations. With `--cost` nothing is run: only the cost model
speaks, also of models that no memory here holds.
"""

from __future__ import annotations

import argparse
from functools import partial
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from gp.backbones.cropping import Crop
from gp.bench.cost import CostModel, Work, total
from gp.bench.options import OptionError, Setup, read_setup
from gp.bench.options import add_arguments as add_shared_arguments
from gp.bench.prefill import cost_model, prefill_costs
from gp.bench.presets import TEXT_AROUND_IMAGE, random_inputs
from gp.bench.report import BenchReport, SpeedUps, TextTable, environment, time_cells, workload
from gp.bench.rounds import interleaved
from gp.measure.spread import Spread, ratio
from gp.model import GlimpseModel
from gp.pruners import PruneView
from gp.pruners.downsample import fit_grid
from gp.pruners.zoom import PLAN, Plan, Zoom, copy_size
from gp.types import PruneOptions

Grid = tuple[int, int]
SHARES = {"glance": "share of the visual tokens in the small copy", "crop": "share of the image in the crop"}


class GivenCrop(Zoom):
    """Takes one crop of a given share of each image, from its middle, and all its tokens; a budget is the copy's."""

    share: float

    def keep(self, scores: Tensor, view: PruneView) -> Tensor:
        assert view.full is not None  # the engine gives it
        crops = tuple(Crop(image, middle(grid, self.share)) for image, grid in enumerate(view.full.grids))
        sizes = [view.full.grids[c.image] if view.backbone.one_image_size else c.size for c in crops]
        view.notes[PLAN] = Plan(crops, tuple(torch.ones(h * w, dtype=torch.bool) for h, w in sizes))
        return self.of.keep(scores, view)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser, ("visual", "text", "batch", "prune_layer"))
    parser.add_argument("--glance", type=float, default=0.25, help=f"{SHARES['glance']} (0.25)")
    parser.add_argument("--crop", type=float, default=0.1, help=f"{SHARES['crop']}, all its tokens kept (0.1)")
    parser.add_argument("--keep-glance", type=float, default=0.25, help="share of the copy's tokens kept (0.25)")
    parser.add_argument("--cost", action="store_true", help="the cost model alone; nothing is run")


def run(options: argparse.Namespace) -> BenchReport:
    """Measures, or computes, everything."""
    for name in ("glance", "crop", "keep_glance"):
        if not 0 < getattr(options, name) <= 1:
            raise OptionError(f"--{name.replace('_', '-')} must be in (0, 1], got {getattr(options, name)}")
    setup = read_setup(options)
    sizes = Sizes(setup, options.glance, options.crop, options.keep_glance)
    cost = cost_model(setup)
    stages = sizes.costs(cost)
    pruned, unpruned = prefill_costs(setup, cost)
    small = cost.prefill([sizes.equal] * setup.preset.batch, setup.preset.text)
    flops = {way: total(one).flops for way, one in
             {"none": unpruned, "glimpse": pruned, "downsample": small, "zoom": stages}.items()}  # fmt: skip
    report = BenchReport(environment(setup))
    report.figures["flops"] = flops
    if not options.cost:
        _add_speed(report, setup, sizes, flops)
    _add_costs(report, setup, sizes, flops)
    _add_stages(report, stages)
    return report


class Sizes:
    """Tokens of a workload under zoom.

    Attributes:
        glance, crop, equal: grids of the copy, of the crop, and of the downsampled image with as many tokens.
        kept: tokens of the copy that survive.
    """

    def __init__(self, setup: Setup, glance: float, crop: float, keep_glance: float) -> None:
        self.setup, self.crop_share, self.glance_share = setup, crop, glance
        height, width = setup.preset.grid
        self.glance = copy_size(height, width, glance)
        top, left, bottom, right = middle((height, width), crop)
        self.crop = bottom - top, right - left
        self.kept = max(1, int(keep_glance * self.glance[0] * self.glance[1]))
        seen = self.glance[0] * self.glance[1] + self.crop[0] * self.crop[1]
        self.equal = fit_grid(height, width, min(seen, height * width))

    def costs(self, cost: CostModel) -> dict[str, Work]:
        preset, (rows, columns) = self.setup.preset, self.crop
        batch = preset.batch
        return cost.zoom(
            [self.glance] * batch,
            [self.crop] * batch,
            TEXT_AROUND_IMAGE,
            preset.text - TEXT_AROUND_IMAGE,
            self.kept,
            rows * columns,
        )

    def pruner(self, model: GlimpseModel) -> GivenCrop:
        pruner = GivenCrop(model.find_pruner("glimpse"), self.glance_share)
        pruner.share = self.crop_share
        return pruner


def middle(grid: Grid, share: float) -> tuple[int, int, int, int]:
    """A box of about a share of a grid, of its shape, from its middle."""
    height, width = (max(1, round(side * sqrt(share))) for side in grid)
    top, left = (grid[0] - height) // 2, (grid[1] - width) // 2
    return top, left, top + height, left + width


def ways(setup: Setup, sizes: Sizes, model: GlimpseModel, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """Calls to time, by the method's name."""
    rows, columns = sizes.equal
    tokens = PruneOptions(num_keep=rows * columns)
    kept = PruneOptions(num_keep=sizes.kept, min_kept=0)
    return {
        "none": partial(model.prefill, inputs, "none"),
        "glimpse": partial(model.prefill, inputs, "glimpse", setup.prune_options),
        "downsample": partial(model.prefill, inputs, "downsample", tokens),
        "zoom": partial(model.prefill, inputs, sizes.pruner(model), kept),
    }


def _add_speed(report: BenchReport, setup: Setup, sizes: Sizes, flops: dict[str, int]) -> None:
    model, inputs = setup.model(), random_inputs(setup.preset, setup.device)
    with torch.inference_mode():
        seconds = interleaved(ways(setup, sizes, model, inputs), setup.repeats, setup.device, "prefills")
    times = TextTable(f"Prefill with the vision tower, {workload(setup)}", ("method", "ms", "quartiles"))
    ratios = SpeedUps("Speed-up over the un-pruned prefill")
    report.figures["prefill_s"] = {way: Spread.from_values(values) for way, values in seconds.items()}
    report.figures["prefill"] = {}
    for way, values in seconds.items():
        times.add(way, *time_cells(Spread.from_values(values)))
        if way != "none":
            speed_up = ratio(seconds["none"], values)
            report.figures["prefill"][way] = ratios.compare(way, speed_up, flops["none"] / flops[way])
    report.tables += [times, ratios]


def _add_costs(report: BenchReport, setup: Setup, sizes: Sizes, flops: dict[str, int]) -> None:
    title = f"Operations, {workload(setup)}"
    table = TextTable(title, ("method", "sees", "TFLOP", "fewer than un-pruned by"))
    (a, b), (c, d), (e, f) = sizes.glance, sizes.crop, sizes.equal
    visual = setup.preset.visual
    sees = {
        "none": f"{visual}",
        "glimpse": f"{visual}, {setup.kept} kept",
        "downsample": f"{e * f}",
        "zoom": f"{a * b} ({sizes.kept} kept) + crop of {c * d}",
    }
    for way, number in flops.items():
        table.add(way, sees[way], f"{number / 1e12:.3g}", f"{flops['none'] / number:.2f} x")
    report.tables.append(table)


def _add_stages(report: BenchReport, stages: dict[str, Work]) -> None:
    whole = total(stages).flops
    table = TextTable("Where zoom's operations go", ("stage", "share"))
    for stage, work in stages.items():
        table.add(stage, f"{100 * work.flops / whole:.1f} %")
    report.tables.append(table)
    report.figures["stages"] = {stage: work.flops for stage, work in stages.items()}
