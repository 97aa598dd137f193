"""The whole evaluation: every split, pruner and budget; one table, and the files that others read."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from gp.config import TrainConfig
from gp.data.batch import Batch, Collator
from gp.data.counts import count_samples
from gp.data.datamodule import GlimpseDataModule
from gp.data.shards import resolve_shards
from gp.eval.costs import BATCH_SIZE, NUM_BATCHES, RowCost, measure_costs
from gp.eval.html_report import write_html
from gp.eval.markdown_report import write_markdown
from gp.eval.overlays import paint_examples
from gp.eval.plan import OWN_GLIMPSE, Method, plan_rows
from gp.eval.process import Process
from gp.eval.rehearsal import rehearse_rows
from gp.eval.report import make_report
from gp.eval.results import Result, read_results
from gp.eval.runner import kept_by_id, run_split
from gp.eval.settings import claim, settings_of, settings_of_methods, shards_of, weights_id
from gp.eval.summary import summarize
from gp.eval.table import make_console, print_table
from gp.model import GlimpseModel
from gp.progress import Progress

SAMPLES = "samples"
SUMMARY = "summary.json"


def evaluate(
    model: GlimpseModel,
    config: TrainConfig,
    out: str | Path,
    ckpt_id: str | None = None,
    command: str | None = None,
    console: Console | None = None,
    process: Process | None = None,
) -> list[dict[str, Any]]:
    """Runs `eval.splits` x `eval.pruners` x `eval.budgets`, prints a table and writes everything into a folder.

    `none` always runs, and so does `glimpse` if a row is matched to it; see `gp.eval.plan`. Finished samples are kept:
    the same call goes on where a killed one stopped, and splits, pruners, budgets and samples can be added later.
    Rows that cannot be run on this base are left out, and named with the reason.

    Args:
        model: on its device, with its processor and default pruning options; `eval.methods` is added to its
            `pruner_settings`.
        config: the sections `eval`, `data` and `model` and the seed are used.
        out: the folder: `summary.json`, `report.md`, `report.html`, `settings.json`, `costs.json`, `samples/`,
            `figures/`.
        ckpt_id: tells the results of checkpoints apart; None: a hash of the trained parts.
        command: that makes the report again; None: the command line of this process.
        console: None: the terminal.
        process: for several processes: all make the same call, each with its own rank; None: there is one.

    Returns:
        One row per split, pruner and budget, as in `summary.json`; keys: see `gp.eval.summary`. Other ranks than 0 get
        none.

    Raises:
        ValueError: an unknown pruner or setting of one, no row that can be run, results of other settings in `out`,
            more unusable samples than allowed.
        FileNotFoundError: a shard is missing.
        StageFailed: a library failed in the rehearsal before the first row; names the row.
    """
    out, console, process = Path(out), console or make_console(), process or Process()
    model.pruner_settings = {**model.pruner_settings, **config.eval.methods}
    methods, left_out = plan_rows(model, config.eval.pruners, config.eval.budgets)
    shards = {split: resolve_shards(config.data.test[split], config.data.root) for split in config.eval.splits}
    settings = settings_of(model, config, ckpt_id or weights_id(model))
    of_methods = settings_of_methods(model, methods)
    if process.rank == 0:
        claim(out, settings, {split: shards_of(paths) for split, paths in shards.items()}, of_methods)
        for one in left_out:
            console.print(f"left out: {one.method.label}: {one.reason}", soft_wrap=True, highlight=False, markup=False)
    process.wait()
    model.eval()
    _rehearse(model, config, methods, out / SAMPLES, console, process)
    collator = Collator(model.processor, config.model.min_pixels, config.model.max_pixels)
    data = GlimpseDataModule(config.data, collator, config.seed)
    rows, examples = [], {}
    for split in config.eval.splits:
        results = _run_split(model, config, data, shards[split], split, methods, out / SAMPLES, console, process)
        if process.rank != 0:
            continue
        first = _first_batches(data, config, split)
        num_keep = kept_by_id(results.get(OWN_GLIMPSE, {}))
        costs = _measure(model, first, methods, config.seed, num_keep, out, split, console)
        rows += summarize(split, results, costs, config.seed)
        examples[split] = paint_examples(model, first, results, config.eval.overlays, config.seed, num_keep, out, split)
    if process.rank != 0:
        return []
    (out / SUMMARY).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print_table(rows, console)
    shown = {**settings, "methods": of_methods}
    report = make_report(out, rows, examples, left_out, shown, config, model.backbone.device, command)
    for path in (write_markdown(out, report), write_html(out, report)):
        console.print(f"report: {path}", soft_wrap=True, highlight=False)
    return rows


def _rehearse(
    model: GlimpseModel, config: TrainConfig, methods: list[Method], done: Path, console: Console, process: Process
) -> None:
    """A small batch through every row with work left, so that one that cannot run shows before hours of others."""
    start_s = time.perf_counter()
    num_rows = rehearse_rows(model, config, methods, done)
    if num_rows and process.rank == 0:
        seconds = time.perf_counter() - start_s
        console.print(f"checked in {seconds:.1f} s: a small batch through {num_rows} rows", highlight=False)
    process.wait()


def _run_split(
    model: GlimpseModel,
    config: TrainConfig,
    data: GlimpseDataModule,
    shards: list[str],
    split: str,
    methods: list[Method],
    folder: Path,
    console: Console,
    process: Process,
) -> dict[Method, dict[str, Result]]:
    """Runs all rows over one split."""
    entries, limit = config.data.test[split], config.eval.num_samples
    samples = count_samples(shards, limit)
    total = None if samples is None else samples * len(methods)
    done = sum(len(read_results(folder, split, method)) for method in methods)
    shown = console if process.rank == 0 else None
    with Progress(split, total, done, unit="answers", console=shown) as progress:
        return run_split(
            model,
            lambda done: data.eval_loader(entries, process.rank, process.world, done, limit),
            split,
            methods,
            folder,
            max_new_tokens=config.eval.max_new_tokens,
            seed=config.seed,
            process=process,
            advance=lambda method, count: progress.update(method.label, advance=count * process.world),
        )


def _measure(
    model: GlimpseModel,
    batches: list[Batch],
    methods: list[Method],
    seed: int,
    num_keep: dict[str, int],
    out: Path,
    split: str,
    console: Console,
) -> dict[Method, RowCost]:
    """Time and memory of all rows on the first batches of a split."""
    few = batches[:NUM_BATCHES]
    with Progress(f"{split}, time and memory", len(methods), unit="rows", console=console) as progress:
        return measure_costs(
            model, few, methods, seed, num_keep, out, split, lambda method: progress.update(method.label, advance=1)
        )


def _first_batches(data: GlimpseDataModule, config: TrainConfig, split: str) -> list[Batch]:
    """Batches that are measured and painted: small ones, because measuring goes over them many times."""
    size = min(BATCH_SIZE, config.data.eval_batch_size)
    few = GlimpseDataModule(replace(config.data, eval_batch_size=size, num_workers=0), data.collator, config.seed)
    wanted, limit = max(config.eval.overlays, NUM_BATCHES * size), config.eval.num_samples
    return list(few.eval_loader(config.data.test[split], num_samples=wanted if limit is None else min(wanted, limit)))
