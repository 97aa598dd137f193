"""What the first process does when all is answered: costs, summary, table, report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gp.data.batch import Batch
from gp.data.datamodule import GlimpseDataModule
from gp.eval.costs import BATCH_SIZE, NOT_MEASURED, NUM_BATCHES, RowCost, measure_costs
from gp.eval.html_report import write_html
from gp.eval.markdown_report import write_markdown
from gp.eval.overlays import Example, paint_examples
from gp.eval.plan import OWN_GLIMPSE, Method
from gp.eval.report import make_report
from gp.eval.results import Result
from gp.eval.runner import kept_by_id
from gp.eval.settings import settings_of_methods
from gp.eval.summary import summarize
from gp.eval.table import print_table
from gp.progress import Progress

if TYPE_CHECKING:
    from gp.eval.module import EvalModule

SUMMARY = "summary.json"


def finish(module: EvalModule) -> list[dict[str, Any]]:
    """Writes everything but the results of single samples, and prints the table.

    Args:
        module: its processes have written all results.

    Returns:
        The rows of the summary.

    Raises:
        ValueError: no sample of a split was answered by every method.
    """
    rows, examples = [], {}
    for run in module.runs:
        results = run.results()
        first = _first_batches(module, run.split)
        num_keep = kept_by_id(results.get(OWN_GLIMPSE, {}))
        costs = _costs(module, first, num_keep, run.split)
        rows += summarize(run.split, results, costs, module.config.seed)
        examples[run.split] = _paint(module, first, results, num_keep, run.split)
    (module.out / SUMMARY).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print_table(rows, module.console)
    _report(module, rows, examples)
    return rows


def _first_batches(module: EvalModule, split: str) -> list[Batch]:
    """Batches that are measured and painted: small ones, because measuring goes over them many times."""
    config = module.config
    size = min(BATCH_SIZE, config.data.eval_batch_size)
    small = replace(config.data, eval_batch_size=size, num_workers=0)
    few = GlimpseDataModule(small, module.data.collator, config.seed)
    wanted, limit = max(config.eval.overlays, NUM_BATCHES * size), config.eval.num_samples
    return list(few.eval_loader(config.data.test[split], num_samples=wanted if limit is None else min(wanted, limit)))


def _costs(module: EvalModule, first: list[Batch], num_keep: Mapping[str, int], split: str) -> dict[Method, RowCost]:
    """Time and memory of all rows on the first batches of a split."""
    methods, seed = module.methods, module.config.seed
    if not module.config.eval.costs:
        return dict.fromkeys(methods, NOT_MEASURED)
    few = first[:NUM_BATCHES]
    with Progress(f"{split}, time and memory", len(methods), unit="rows", console=module.console) as progress:

        def advance(method: Method) -> None:
            progress.update(method.label, advance=1)

        return measure_costs(module.model, few, methods, seed, num_keep, module.out, split, advance)


def _paint(
    module: EvalModule,
    first: list[Batch],
    results: Mapping[Method, Mapping[str, Result]],
    num_keep: Mapping[str, int],
    split: str,
) -> list[Example]:
    config = module.config
    return paint_examples(module.model, first, results, config.eval.overlays, config.seed, num_keep, module.out, split)


def _report(module: EvalModule, rows: list[dict[str, Any]], examples: Mapping[str, list[Example]]) -> None:
    shown = {**module.settings, "methods": settings_of_methods(module.model, module.methods)}
    device = module.model.backbone.device
    report = make_report(module.out, rows, examples, module.left_out, shown, module.config, device, module.command)
    for path in (write_markdown(module.out, report), write_html(module.out, report)):
        module.console.print(f"report: {path}", soft_wrap=True, highlight=False)
