"""What the first process does when all is answered and measured: summary, table, report."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gp.cli import as_typed
from gp.config.sets import set_options
from gp.data.batch import Batch
from gp.eval import breakdown
from gp.eval import judged as judge
from gp.eval.exports import as_csv, write_tables
from gp.eval.gallery import Failures, as_entries, paint_failures
from gp.eval.html_report import write_html
from gp.eval.judged import adopt, lines_of_judged, read_judged
from gp.eval.lines import print_lines
from gp.eval.markdown_report import write_markdown
from gp.eval.overlays import Example, paint_examples
from gp.eval.plan import OWN_GLIMPSE, Method
from gp.eval.report import make_report
from gp.eval.results import Result
from gp.eval.runner import kept_by_id
from gp.eval.sets_table import TITLE, as_latex, lines_of, means_of_sets, print_sets, sets_csv
from gp.eval.settings import settings_of_methods
from gp.eval.summary import summarize
from gp.eval.table import print_table
from gp.runs.writing import write_text

if TYPE_CHECKING:
    from gp.eval.module import EvalModule

SUMMARY = "summary.json"
BREAKDOWN_JSON, BREAKDOWN_CSV = "breakdown.json", "breakdown.csv"
FAILURES, CALIBRATION = "failures.json", "calibration.json"
SETS_JSON, SETS_CSV, SETS_LATEX = "sets.json", "sets.csv", "sets.tex"


def finish(module: EvalModule) -> list[dict[str, Any]]:
    """Writes everything but the results of single samples, and prints the table.

    Args:
        module: its processes have written all results, and its callbacks have all figures.

    Returns:
        The rows of the summary.

    Raises:
        ValueError: no sample of a split was answered by every method.
    """
    rows, groups, examples, failures = [], [], {}, {}
    judged = _judged(module)
    for run in module.runs:
        results, split = run.results(), run.split
        options, seed = set_options(module.config.eval, split), module.config.seed
        scorer, figures = options.scores[0], (module.scores.figures[split], module.costs.figures[split])
        new = summarize(split, *figures, results, seed, module.reference, scorer)
        if judged and adopt(new, results, judged) < len(new):
            again = as_typed(f"python evaluate.py score={module.out} judge.base_url=... judge.model=...")
            module.console.print(
                f"{judge.FILE}: not of all answers to {split}: {again}", soft_wrap=True, highlight=False
            )
        rows += new
        groups += breakdown.break_down(split, results, scorer, module.reference, seed, options.categories)
        examples[split] = _paint(module, results, split)
        failures[split] = _failures(module, results, split)
    _write(module, SUMMARY, rows)
    write_tables(module.out, rows)
    print_table(rows, module.console)
    _sets(module, rows)
    print_sets(lines_of_judged(rows), module.console, judge.TITLE)
    _groups(module, groups)
    _write(module, FAILURES, [entry for split, found in failures.items() for entry in as_entries(split, found)])
    _write(module, CALIBRATION, module.scores.reliability)
    _report(module, rows, groups, examples, failures, judged)
    return rows


def _write(module: EvalModule, name: str, content: Any) -> None:
    write_text(module.out / name, json.dumps(content, indent=1) + "\n")


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
    _write(module, SETS_JSON, means)
    write_text(module.out / SETS_CSV, sets_csv(means))
    lines = lines_of(rows, scores)
    write_text(module.out / SETS_LATEX, as_latex(lines))
    print_sets(lines, module.console)


def _failures(module: EvalModule, results: Mapping[Method, Mapping[str, Result]], split: str) -> list[Failures]:
    count, seed = module.config.eval.failures, module.config.seed
    num_keep = kept_by_id(results.get(OWN_GLIMPSE, {}))

    def load(numbers: Collection[int]) -> Iterator[Batch]:
        return module.single_batches(split, numbers)

    return paint_failures(module.model, load, results, count, seed, num_keep, module.out, split)


def _groups(module: EvalModule, groups: list[dict[str, Any]]) -> None:
    """Kinds of questions as files; categories, which a set has asked for, are printed, too."""
    _write(module, BREAKDOWN_JSON, groups)
    write_text(module.out / BREAKDOWN_CSV, as_csv(groups))
    for run in module.runs:
        of_split = [row for row in groups if row["split"] == run.split and row["by"] == breakdown.CATEGORY]
        for lines in breakdown.lines_of(of_split):
            print_lines(lines, f"split {run.split}: {TITLE}", module.console, breakdown.NUM_TEXT_COLUMNS)


def _paint(module: EvalModule, results: Mapping[Method, Mapping[str, Result]], split: str) -> list[Example]:
    count, seed = module.config.eval.overlays, module.config.seed
    num_keep = kept_by_id(results.get(OWN_GLIMPSE, {}))
    return paint_examples(module.model, module.first_batches(split), results, count, seed, num_keep, module.out, split)


def _report(
    module: EvalModule,
    rows: list[dict[str, Any]],
    groups: list[dict[str, Any]],
    examples: Mapping[str, list[Example]],
    failures: Mapping[str, list[Failures]],
    judged: dict[str, Any] | None,
) -> None:
    shown = {**module.settings, "methods": settings_of_methods(module.model, module.methods)}
    device = module.model.backbone.device
    report = make_report(
        module.out,
        rows,
        groups,
        examples,
        failures,
        module.scores.reliability,
        module.left_out,
        shown,
        module.config,
        device,
        module.command,
        judged,
    )
    for path in (write_markdown(module.out, report), write_html(module.out, report)):
        module.console.print(f"report: {path}", soft_wrap=True, highlight=False, markup=False)
