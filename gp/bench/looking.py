"""Accuracy against measured questions a second: zoom over sizes of its small copy and gates, beside other ways.

Each question is prefilled, with the vision tower, and answered greedily, by all ways in turn in one process; a trained
gate is among them if the run has one. `downsample` sees as many visual tokens of each question as zoom with the gate
`always` has put through the tower: equal compute. The bill is the ratio of the operations of all prefills, by the cost
model on the grids, crops and kept tokens that there were. Settings of zoom are those of eval.methods.zoom. Images are
as large as the run's data have them: give model.max_pixels of the full size if the run was trained on small copies.

    python -m gp.bench looking runs/tiny_zoom_gate model.max_pixels=200704 --figure docs/images/zoom_speed
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from gp.bench.looked_bill import cost_of, operations
from gp.bench.options import OptionError, check_at_least
from gp.bench.report import BenchReport, TextTable, machine
from gp.data.batch import Batch, Collator
from gp.data.datamodule import GlimpseDataModule
from gp.engine.generation import GREEDY
from gp.eval import load_run
from gp.eval.bootstrap import accuracy_intervals
from gp.eval.figures import COLORS, MARKERS, save
from gp.measure.spread import Spread, ratio
from gp.measure.stopwatch import Stopwatch
from gp.metrics import exact_match
from gp.model import GlimpseModel
from gp.pruners import Pruner
from gp.pruners.zoom import GATES
from gp.types import PruneOptions

GLANCES = ("1/16", "1/9", "1/4")
WARM_UP = 2  # batches that are not counted


@dataclass
class Way:
    """One way to answer, and what was found of it.

    Args:
        name: for people.
        line: ways of one line in the figure.
        pruner: the method.
        like: the way whose number of encoded tokens this one has; None: it decides itself.

    Attributes:
        right: of each question.
        seconds, prefill_seconds: of each batch, prefill with the vision tower and answer, and the former alone.
        flops: of each batch's prefill, by the cost model.
        encoded, kept, zoomed: visual tokens that left the tower, those in the cache at the end, and whether a crop was
            taken, of each question.
    """

    name: str
    line: str
    pruner: Pruner | str
    like: str | None = None
    right: list[bool] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    prefill_seconds: list[float] = field(default_factory=list)
    flops: list[int] = field(default_factory=list)
    encoded: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    zoomed: list[bool] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ckpt", help="a run, a folder of trained parts, or tiny")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options of its config that differ")
    parser.add_argument("--config", type=Path, help="instead of the one beside the checkpoint")
    parser.add_argument("--split", default="test", help="of data.test (test)")
    parser.add_argument("--samples", type=int, default=256, help="questions (256)")
    parser.add_argument("--batch", type=int, default=1, help="questions at a time (1)")
    parser.add_argument("--glances", nargs="+", default=list(GLANCES), help="shares of the copy (1/16 1/9 1/4)")
    parser.add_argument("--gates", nargs="+", default=list(GATES), choices=GATES, help=f"({' '.join(GATES)})")
    parser.add_argument("--figure", type=Path, help="writes the figure there, as .png, .svg and .pdf")


def run(options: argparse.Namespace) -> BenchReport:
    """Answers all questions by all ways."""
    check_at_least(1, options, ("samples", "batch"))
    glances = {text: share_of(text) for text in options.glances}
    fixed = [f"data.eval_batch_size={options.batch}", "data.num_workers=0"]
    model, config = load_run(options.ckpt, [*options.overrides, *fixed], options.config)
    if options.split not in config.data.test:
        raise OptionError(f"--split must be one of {', '.join(config.data.test)}, got {options.split}")
    data = GlimpseDataModule(config.data, Collator(model.processor, config.model.min_pixels, config.model.max_pixels))
    batches = data.eval_loader(config.data.test[options.split], num_samples=options.samples)
    ways = ways_of(model, glances, options.gates, config.eval.methods.get("zoom"))
    with torch.inference_mode():
        answer_all(model, ways, batches, config.eval.max_new_tokens)
    report = BenchReport({**machine(str(model.device)), "ckpt": str(options.ckpt), "split": options.split})
    rows = summarize(ways)
    report.figures["rows"] = rows
    report.tables.append(table_of(rows, f"{options.split}, {len(ways[0].right)} questions, {options.batch} at a time"))
    if options.figure:
        save(draw(rows), options.figure)
    return report


def share_of(text: str) -> float:
    """A share as a fraction or a number; OptionError for one outside (0, 1]."""
    try:
        share = float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        share = 0.0
    if not 0 < share <= 1:
        raise OptionError(f"--glances must be fractions or numbers in (0, 1], got {text!r}")
    return share


def ways_of(
    model: GlimpseModel,
    glances: dict[str, float],
    chosen: Sequence[str] = GATES,
    settings: Mapping[str, Any] | None = None,
) -> list[Way]:
    """All ways; `trained` only where the glimpse has a gate, and of the gates those that were chosen.

    Args:
        settings: of zoom, by name.
    """
    if model.glimpse is None:
        raise OptionError("ckpt: this run has no glimpse that could look")
    ways = [Way("none", "none", "none"), Way("glimpse", "glimpse", "glimpse")]
    gates = [gate for gate in GATES if gate in chosen and (gate != "trained" or model.glimpse.gate is not None)]
    for text, share in glances.items():
        for gate in gates:
            pruner = model.find_pruner("zoom", {**(settings or {}), "glance": share, "gate": gate})
            ways.append(Way(f"zoom {text}, {gate}", f"zoom, {gate}", pruner))
        if "always" in gates:
            ways.append(Way(f"downsample as {text}", "downsample", "downsample", like=f"zoom {text}, always"))
    return ways


def answer_all(model: GlimpseModel, ways: Sequence[Way], batches: Iterable[Batch], max_new_tokens: int) -> None:
    """Every batch by every way, in turn; the first batches are answered once before, unmeasured."""
    by_name = {way.name: way for way in ways}
    kept = list(islice(iter(batches), WARM_UP))
    for batch in kept:
        for way in ways:
            answer(model, Way(way.name, way.line, way.pruner), batch.to(model.device), max_new_tokens, equal(way, {}))
    for batch in [*kept, *islice(iter(batches), WARM_UP, None)]:
        encoded: dict[str, list[int]] = {}
        for way in ways:
            answer(model, way, batch.to(model.device), max_new_tokens, equal(way, encoded))
            encoded[way.name] = by_name[way.name].encoded[-len(batch) :]


def equal(way: Way, encoded: dict[str, list[int]]) -> PruneOptions | None:
    """Options of `downsample`: as many tokens of each question as the way it is like has put through the tower."""
    if way.like is None:
        return None
    if not encoded:
        return PruneOptions(fixed_keep_ratio=0.5)
    counts = zip(encoded[way.like], encoded["none"], strict=True)  # an image has no more tokens than it came with
    return PruneOptions(num_keep=tuple(min(pair) for pair in counts))


def answer(
    model: GlimpseModel, way: Way, batch: Batch, max_new_tokens: int, options: PruneOptions | None = None
) -> None:
    """One batch by one way; adds to what was found of it."""
    ids, inputs = batch.sent["input_ids"], batch.inputs_for(model.backbone)  # normalised before the clock starts
    watch = Stopwatch(model.device)
    done = model.prefill(inputs, way.pruner, options)
    done.insist()  # waits for the device
    way.prefill_seconds.append(watch.lap())
    new = model.decode(ids, done, consume=True, max_new_tokens=max_new_tokens, **GREEDY)[:, ids.shape[1] :]
    way.seconds.append(way.prefill_seconds[-1] + watch.lap())
    sizes, crops = done.layout.prompt_sizes, {done.full_layout.rows[crop.image] for crop in done.crops}
    kept = done.layout.split_by_prompt(done.keep_mask)
    zooms = way.line.startswith("zoom")
    looked = (zooms or way.line == "glimpse", zooms)
    way.flops.append(operations(cost_of(model), done, ids.cpu(), model.backbone.image_token_id, *looked))
    texts = model.processor.batch_decode(new, skip_special_tokens=True)
    way.right += [exact_match(text, sample.answer) for text, sample in zip(texts, batch.samples, strict=True)]
    way.encoded += sizes
    way.kept += [int(part.sum()) for part in kept]
    way.zoomed += [row in crops for row in range(len(batch))]


def summarize(ways: Sequence[Way]) -> list[dict[str, Any]]:
    """A row per way: accuracy with its interval, questions a second, speed-up over un-pruned, tokens, crops."""
    intervals = accuracy_intervals(np.array([way.right for way in ways]), 0)
    rows = []
    for way, (low, high) in zip(ways, intervals, strict=True):
        rows.append(
            {
                "way": way.name,
                "line": way.line,
                "accuracy": float(np.mean(way.right)),
                "accuracy_ci95": [float(low), float(high)],
                "questions_per_s": len(way.right) / sum(way.seconds),
                "speed_up": asdict(ratio(ways[0].seconds, way.seconds)),
                "prefill_speed_up": asdict(ratio(ways[0].prefill_seconds, way.prefill_seconds)),
                "prefill_bound": sum(ways[0].flops) / sum(way.flops),
                "encoded": float(np.mean(way.encoded)),
                "kept": float(np.mean(way.kept)),
                "zoomed": float(np.mean(way.zoomed)),
            }
        )
    return rows


def table_of(rows: Sequence[dict[str, Any]], title: str) -> TextTable:
    heads = ("way", "right %", "questions a second", "times faster", "prefill, times faster", "by the bill",
             "encoded", "kept", "zoomed %")  # fmt: skip
    table = TextTable(f"Accuracy and speed, {title}", heads)
    for row in rows:
        low, high = row["accuracy_ci95"]
        speed, prefill = Spread(**row["speed_up"]), Spread(**row["prefill_speed_up"])
        table.add(
            row["way"],
            f"{100 * row['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
            f"{row['questions_per_s']:.1f}",
            f"{speed.median:.2f} [{speed.low:.2f}, {speed.high:.2f}]",
            f"{prefill.median:.2f} [{prefill.low:.2f}, {prefill.high:.2f}]",
            f"{row['prefill_bound']:.2f}",
            f"{row['encoded']:.0f}",
            f"{row['kept']:.0f}",
            f"{100 * row['zoomed']:.0f}" if row["line"].startswith("zoom") else "-",
        )
    return table


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy against questions a second, a line per gate over the sizes of the copy."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, line in enumerate(dict.fromkeys(row["line"] for row in rows)):
        mine = [row for row in rows if row["line"] == line]
        x, y = [row["questions_per_s"] for row in mine], [100 * row["accuracy"] for row in mine]
        bars = [[100 * (row["accuracy"] - row["accuracy_ci95"][0]) for row in mine],
                [100 * (row["accuracy_ci95"][1] - row["accuracy"]) for row in mine]]  # fmt: skip
        style: Any = {"color": COLORS[number], "marker": MARKERS[number], "markersize": 6, "linewidth": 1.2}
        axes.errorbar(x, y, yerr=np.clip(bars, 0, None), elinewidth=0.7, capsize=2, label=line, **style)
        for row in mine:
            if line.startswith("zoom"):
                size = row["way"].removeprefix("zoom ").partition(",")[0]
                at = (row["questions_per_s"], 100 * row["accuracy"])
                axes.annotate(size, at, textcoords="offset points", xytext=(5, -9), fontsize="x-small")
    axes.set_xlabel("questions a second, prefill with the vision tower and answer")
    axes.set_ylabel("answers that match exactly (%)")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure
