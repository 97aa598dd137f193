"""One micro-batch of task grpo, stage by stage: draws, reference, training.

Answers are drawn behind prompts that a mask prunes, `--group` to a question, all of the same length, and trained on:
with gradients through the whole prompt, or through its last token and the answers alone. Both ways in turn in one
process; the device's queue is empty between stages. Needs peft.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from gp.backbones.adapters import new_adapter
from gp.bench.options import Setup, check_at_least, read_setup
from gp.bench.options import add_arguments as add_shared_arguments
from gp.bench.plus_bill import WAYS
from gp.bench.presets import random_inputs
from gp.bench.report import BenchReport, TextTable, environment, time_cells, workload
from gp.bench.rounds import show_round
from gp.engine.answer_logprobs import AS_GIVEN, AnswerLogProbs, answer_logprobs, pruned_prefix
from gp.engine.generation import GREEDY
from gp.engine.sampling import seeded_draw
from gp.measure.spread import Spread, ratio
from gp.measure.stopwatch import Stopwatch
from gp.model import GlimpseModel
from gp.pruners import OraclePruner
from gp.types import ImageFeatures

STAGES = (
    "vision tower",
    "drawing, prefill",
    "drawing, token by token",
    "reference",
    "training, prompt",
    "training, answers",
    "backward",
)
WHOLE = "micro-batch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser, ("visual", "text", "answer", "batch"))
    parser.add_argument("--group", type=int, default=4, help="answers to each question (4)")
    parser.add_argument("--rank", type=int, default=32, help="of the adapter (32)")


def run(options: argparse.Namespace) -> BenchReport:
    """Measures both ways."""
    setup = read_setup(options)
    check_at_least(2, options, ("group",))
    check_at_least(1, options, ("rank",))
    model, work = setup.model(), Work(setup, options.group)
    model.base = new_adapter(model.backbone, options.rank, 2 * options.rank)
    seconds: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for number in range(1 + setup.repeats):
        for way in WAYS:
            laps = work.step(model, way)
            if number:
                seconds[way].append(laps)
        show_round("micro-batches", number + 1, 1 + setup.repeats)
    return summarize(setup, options.group, seconds)


class Work:
    """One batch of prompts with masks.

    Args:
        setup: sizes and device.
        group: answers to each question.
    """

    def __init__(self, setup: Setup, group: int) -> None:
        preset = setup.preset
        self.setup, self.group = setup, group
        self.inputs = random_inputs(preset, setup.device)
        self.prune_layer = preset.glimpse.prune_layer
        self.masks = [_random_mask(preset.grid, setup.kept, seed).to(setup.device) for seed in range(preset.batch)]

    def step(self, model: GlimpseModel, way: str) -> list[float]:
        """Seconds of each stage, mixed with float32 as Lightning does it."""
        dtype, kind = model.backbone.dtype, model.backbone.device.type
        with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
            laps, loss = self._forward(model, way == WAYS[0])
        watch = Stopwatch(self.setup.device)
        loss.backward()
        laps.append(watch.lap())
        model.base.zero_grad()
        return laps

    def _forward(self, model: GlimpseModel, gradients: bool) -> tuple[list[float], Tensor]:
        watch = Stopwatch(self.setup.device)
        images = model.see(self.inputs, ["none"])
        laps = [watch.lap()]
        pruner = OraclePruner(self.prune_layer)
        done = model.prefill(self.inputs, pruner, AS_GIVEN, self.masks, images=images)
        laps.append(watch.lap())
        ids = self._draw(model, done)
        laps.append(watch.lap())
        with torch.no_grad(), model.adapter.disable_adapter():
            self._log_probs(model, images, ids, False)
        laps.append(watch.lap())
        prefix = pruned_prefix(model.backbone, self.inputs, self.masks, self.prune_layer, images, gradients)
        laps.append(watch.lap())
        found = answer_logprobs(model.backbone, prefix, ids, torch.ones_like(ids, dtype=torch.bool))
        laps.append(watch.lap())
        return laps, found.log_probs.mean()

    def _draw(self, model: GlimpseModel, done: Any) -> Tensor:
        prompts, count = self.inputs["input_ids"], self.setup.preset.answer
        rows, seeds = prompts.repeat_interleave(self.group, 0), range(len(prompts) * self.group)
        length = {"min_new_tokens": count, "max_new_tokens": count, "pad_token_id": 0}
        drawn = model.decode(rows, done, consume=True, **{**GREEDY, **length}, **seeded_draw(seeds, 1.0, model.device))
        return drawn[:, prompts.shape[1] :].clone()

    def _log_probs(self, model: GlimpseModel, images: ImageFeatures, ids: Tensor, gradients: bool) -> AnswerLogProbs:
        prefix = pruned_prefix(model.backbone, self.inputs, self.masks, self.prune_layer, images, gradients)
        return answer_logprobs(model.backbone, prefix, ids, torch.ones_like(ids, dtype=torch.bool))


def summarize(setup: Setup, group: int, seconds: dict[str, list[list[float]]]) -> BenchReport:
    """A table per way, and what the shorter gradients save, round by round."""
    title = f"{workload(setup)}, {setup.kept} kept, {group} x {setup.preset.answer} answer tokens"
    totals = {way: [sum(laps) for laps in rounds] for way, rounds in seconds.items()}
    figures: dict[str, Any] = {"ways": {}, "last_token_against_whole": ratio(totals[WAYS[1]], totals[WAYS[0]])}
    tables = []
    for way, rounds in seconds.items():
        table = TextTable(f"Gradients through the {way}: {title}", ("stage", "ms", "quartiles", "share"))
        by_stage = dict(zip(STAGES, map(list, zip(*rounds, strict=True)), strict=True))
        for stage, values in {**by_stage, WHOLE: totals[way]}.items():
            share = ratio(values, totals[way])
            table.add(stage, *time_cells(Spread.from_values(values)), f"{100 * share.median:.0f} %")
        spreads = {stage: Spread.from_values(values) for stage, values in by_stage.items()}
        figures["ways"][way] = {"stages_s": spreads, "step_s": Spread.from_values(totals[way])}
        tables.append(table)
    saved = TextTable("Gradients through the last token against the whole prompt", ("what", "measured", "quartiles"))
    one = figures["last_token_against_whole"]
    saved.add("time of a micro-batch", f"{one.median:.2f} x", f"{one.low:.2f} .. {one.high:.2f}")
    return BenchReport(environment(setup), figures, [*tables, saved])


def _random_mask(grid: tuple[int, int], kept: int, seed: int) -> Tensor:
    """So many of an image's tokens, anywhere; bool [h, w]."""
    order = torch.randperm(grid[0] * grid[1], generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(grid[0] * grid[1], dtype=torch.bool)
    mask[order[:kept]] = True
    return mask.view(grid)
