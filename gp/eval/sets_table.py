"""One row per set and their unweighted mean: the score of every method, and beside it the share of tokens it kept."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from gp.eval.latex import booktabs, document
from gp.eval.lines import print_lines
from gp.eval.scores import figure_of
from gp.eval.table import budget_text, percent
from gp.pruners import NoPruner

Row = dict[str, Any]

MEAN = "mean"
TITLE = "score % (kept %)"
NUM_TEXT_COLUMNS = 2
LEGEND = (
    "Score of each set in percent, by the scorer named; in brackets the share of visual tokens that the last layer "
    "saw. Mean: unweighted, every set counts the same."
)


def means_of_sets(rows: Sequence[Row], scores: Mapping[str, str]) -> list[Row]:
    """Scores of every method that has a row in all sets.

    Args:
        rows: of `summary.json`.
        scores: split -> its scorer, in the order of the table.

    Returns:
        One entry per method: `pruner`, `budget`, `matched`, `threshold`, `score` and `keep_ratio` (unweighted means
        over sets), and `sets`: split -> `scorer`, `score`, `keep_ratio`, `num_samples`.
    """
    methods: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        methods.setdefault((row["pruner"], row["budget"], row["matched"], row.get("threshold")), {})[row["split"]] = row
    return [
        _mean(dict(zip(("pruner", "budget", "matched", "threshold"), key)), of_sets, scores)
        for key, of_sets in methods.items()
        if of_sets.keys() >= scores.keys()
    ]


def lines_of(rows: Sequence[Row], scores: Mapping[str, str]) -> list[list[str]]:
    """The table as text, heads first; empty for fewer than two sets. Arguments as of `means_of_sets`."""
    if len(scores) < 2:
        return []
    means = means_of_sets(rows, scores)
    lines = [["set", "scorer", "n", *map(name_of, means)]]
    for split, scorer in scores.items():
        of_methods = [mean["sets"][split] for mean in means]
        lines.append([split, scorer, str(of_methods[0]["num_samples"]), *map(_cell, of_methods)])
    total = sum(one["num_samples"] for one in means[0]["sets"].values())
    return [*lines, [MEAN, "", str(total), *map(_cell, means)]]


def print_sets(lines: Sequence[Sequence[str]], console: Console, title: str = f"sets: {TITLE}") -> None:
    """Prints the lines of `lines_of`, if there are any."""
    if lines:
        print_lines(lines, title, console, NUM_TEXT_COLUMNS, last_apart=True)


def as_latex(lines: Sequence[Sequence[str]]) -> str:
    """The lines of `lines_of` as a file for LaTeX, the mean below a rule."""
    return document([booktabs(lines[0], lines[1:], TITLE, NUM_TEXT_COLUMNS, last_apart=True)])


def sets_csv(means: Sequence[Row]) -> str:
    """Entries of `means_of_sets` as CSV, a line per method and set, the mean as a set of its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["pruner", "budget", "matched", "threshold", "set", "scorer", "num_samples", "score", "keep_ratio"])
    for mean in means:
        method = [mean["pruner"], mean["budget"], mean["matched"], mean["threshold"]]
        for split, one in mean["sets"].items():
            writer.writerow([*method, split, one["scorer"], one["num_samples"], one["score"], one["keep_ratio"]])
        writer.writerow([*method, MEAN, "", "", mean["score"], mean["keep_ratio"]])
    return text.getvalue()


def _mean(method: Row, of_sets: Mapping[str, Row], scores: Mapping[str, str]) -> Row:
    sets = {
        split: {
            "scorer": scorer,
            "score": of_sets[split][figure_of(scorer)],
            "keep_ratio": of_sets[split]["keep_ratio"],
            "num_samples": of_sets[split]["num_samples"],
        }
        for split, scorer in scores.items()
    }
    means = {key: round(statistics.fmean(one[key] for one in sets.values()), 6) for key in ("score", "keep_ratio")}
    return {**method, **means, "sets": sets}


def name_of(mean: Row) -> str:
    """The head of a method's column."""
    return mean["pruner"] if mean["pruner"] == NoPruner.name else f"{mean['pruner']} {budget_text(mean)}"


def _cell(one: Row) -> str:
    return f"{percent(one['score'])} ({percent(one['keep_ratio'])})"
