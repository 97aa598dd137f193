"""One row per set and their unweighted mean: the score of every method, and beside it the share of tokens it kept."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gp.eval.scores import figure_of
from gp.eval.table import budget_text, percent
from gp.pruners import NoPruner

Row = dict[str, Any]

MEAN = "mean"
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
        One entry per method: `pruner`, `budget`, `matched`, `score` and `keep_ratio` (unweighted means over sets), and
        `sets`: split -> `scorer`, `score`, `keep_ratio`, `num_samples`.
    """
    methods: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        methods.setdefault((row["pruner"], row["budget"], row["matched"]), {})[row["split"]] = row
    return [
        _mean(dict(zip(("pruner", "budget", "matched"), key)), of_sets, scores)
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


def print_sets(lines: Sequence[Sequence[str]], console: Console, title: str = "sets: score % (kept %)") -> None:
    """Prints the lines of `lines_of`, if there are any."""
    if not lines:
        return
    table = Table(title=Text(title), title_justify="left", padding=(0, 1, 0, 0))
    for index, head in enumerate(lines[0]):
        table.add_column(
            head, justify="left" if index < NUM_TEXT_COLUMNS else "right", no_wrap=index < NUM_TEXT_COLUMNS
        )
    for line in lines[1:]:
        table.add_row(*map(Text, line), end_section=line is lines[-2])
    console.print(table)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """The lines of `lines_of` as a Markdown table."""
    rule = ["---"] * NUM_TEXT_COLUMNS + ["---:"] * (len(lines[0]) - NUM_TEXT_COLUMNS)
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def as_csv(means: Sequence[Row]) -> str:
    """Entries of `means_of_sets` as CSV, a line per method and set, the mean as a set of its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["pruner", "budget", "matched", "set", "scorer", "num_samples", "score", "keep_ratio"])
    for mean in means:
        method = [mean["pruner"], mean["budget"], mean["matched"]]
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
