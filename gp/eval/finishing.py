"""What the first process does when all is answered and measured: summary, table, report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gp.config.sets import set_options
from gp.eval.html_report import write_html
from gp.eval.judged import FILE, TITLE, adopt, lines_of_judged, read_judged
from gp.eval.markdown_report import write_markdown
from gp.eval.overlays import Example, paint_examples
from gp.eval.plan import OWN_GLIMPSE, Method
from gp.eval.report import make_report
from gp.eval.results import Result
from gp.eval.runner import kept_by_id
from gp.eval.sets_table import as_csv, lines_of, means_of_sets, print_sets
from gp.eval.settings import settings_of_methods
from gp.eval.summary import summarize
from gp.eval.table import print_table
from gp.runs.writing import write_text

if TYPE_CHECKING:
    from gp.eval.module import EvalModule

SUMMARY = "summary.json"
SETS_JSON, SETS_CSV = "sets.json", "sets.csv"


def finish(module: EvalModule) -> list[dict[str, Any]]:
    """Writes everything but the results of single samples, and prints the table.

    Args:
        module: its processes have written all results, and its callbacks have all figures.

    Returns:
        The rows of the summary.

    Raises:
        ValueError: no sample of a split was answered by every method.
    """
    rows, examples, judged = [], {}, _judged(module)
    for run in module.runs:
        results, split = run.results(), run.split
        new = summarize(split, module.scores.figures[split], module.costs.figures[split], results, module.config.seed)
        if judged and adopt(new, results, judged) < len(new):
            again = f"python evaluate.py score={module.out} judge.base_url=... judge.model=..."
            module.console.print(f"{FILE}: not of all answers to {split}: {again}", soft_wrap=True, highlight=False)
        rows += new
        examples[split] = _paint(module, results, split)
    write_text(module.out / SUMMARY, json.dumps(rows, indent=1) + "\n")
    print_table(rows, module.console)
    _sets(module, rows)
    print_sets(lines_of_judged(rows), module.console, TITLE)
    _report(module, rows, examples, judged)
    return rows


def _judged(module: EvalModule) -> dict[str, Any] | None:
    """A judge's scores of answers that are there; a file that is none must not stop the end of a long evaluation."""
    try:
        return read_judged(module.out)
    except ValueError as error:
        module.console.print(str(error), soft_wrap=True, highlight=False, markup=False)
        return None


def _sets(module: EvalModule, rows: list[dict[str, Any]]) -> None:
    """The table of several sets, printed and as files."""
    scores = {run.split: set_options(module.config.eval, run.split).scores[0] for run in module.runs}
    if len(scores) < 2:
        return
    means = means_of_sets(rows, scores)
    write_text(module.out / SETS_JSON, json.dumps(means, indent=1) + "\n")
    write_text(module.out / SETS_CSV, as_csv(means))
    print_sets(lines_of(rows, scores), module.console)


def _paint(module: EvalModule, results: Mapping[Method, Mapping[str, Result]], split: str) -> list[Example]:
    count, seed = module.config.eval.overlays, module.config.seed
    num_keep = kept_by_id(results.get(OWN_GLIMPSE, {}))
    return paint_examples(module.model, module.first_batches(split), results, count, seed, num_keep, module.out, split)


def _report(
    module: EvalModule,
    rows: list[dict[str, Any]],
    examples: Mapping[str, list[Example]],
    judged: dict[str, Any] | None,
) -> None:
    shown = {**module.settings, "methods": settings_of_methods(module.model, module.methods)}
    device = module.model.backbone.device
    facts = module.left_out, shown, module.config, device, module.command, judged
    report = make_report(module.out, rows, examples, *facts)
    for path in (write_markdown(module.out, report), write_html(module.out, report)):
        module.console.print(f"report: {path}", soft_wrap=True, highlight=False, markup=False)
