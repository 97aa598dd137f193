"""Scores of a judge beside the answers: `judge.json`, figures of the rows, the table of sets, parts of the report.

What is known of a row holds for exactly its answers: it goes when they change.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gp.eval.plan import Method
from gp.eval.results import Result
from gp.eval.sets_table import MEAN, means_of_sets, name_of
from gp.eval.table import JUDGE_SCORE, NUM_JUDGED, percent

Row = dict[str, Any]

FILE = "judge.json"
PART = "judge"  # of the report
FIGURES = (JUDGE_SCORE, NUM_JUDGED)
TITLE = "sets: judge % (kept %)"
LEGEND = (
    "Judge: mean score in percent of the answers judged; in brackets the share of visual tokens that the last layer "
    "saw. Judged: answers of all methods together; a missing one is no score of 0. Mean: unweighted over sets."
)


def method_of(row: Mapping[str, Any]) -> Method:
    """The method of a row of a summary."""
    return Method(row["pruner"], row["budget"], row["matched"], row.get("threshold"))


def answers_id(results: Iterable[Result]) -> str:
    """Hash of answers: questions, right answers and what was said, whatever their order."""
    lines = sorted([one.id, one.question, one.answer, one.prediction] for one in results)
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]


def read_judged(out: Path) -> dict[str, Any] | None:
    """What `judge.json` in an evaluation's folder says; None: there is none.

    Raises:
        ValueError: it is another file.
    """
    path = out / FILE
    if not path.is_file():
        return None
    try:
        judged = json.loads(path.read_text(encoding="utf-8"))
        [(row["split"], method_of(row), row["answers"], [row[name] for name in FIGURES]) for row in judged["rows"]]
        _ = judged["model"], judged["protocol"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the scores of a judge ({error}); delete it and score again") from error
    return judged


def adopt(rows: Sequence[Row], results: Mapping[Method, Mapping[str, Result]], judged: Mapping[str, Any]) -> int:
    """Gives rows of one split the figures that a judge's scores of exactly these answers have.

    Args:
        rows: of the summary, in the order of `results`; changed in place, all or none.
        results: row -> id -> result.
        judged: as of `read_judged`.

    Returns:
        Number of rows that are judged.
    """
    common = set.intersection(*(set(row) for row in results.values()))
    known = {(row["split"], method_of(row), row["answers"]): row for row in judged["rows"]}
    found = []
    for row, (method, of_method) in zip(rows, results.items(), strict=True):
        answers = answers_id(result for key, result in of_method.items() if key in common)
        found.append(known.get((row["split"], method, answers)))
    if any(found):
        for row, figures in zip(rows, found, strict=True):
            row |= {name: figures[name] for name in FIGURES} if figures else {JUDGE_SCORE: None, NUM_JUDGED: 0}
    return len([one for one in found if one])


def means_of_judged(rows: Sequence[Row]) -> list[Row]:
    """`means_of_sets` of the judge's scores, of methods with a score in every set."""
    splits = dict.fromkeys((row["split"] for row in rows), JUDGE_SCORE)
    return means_of_sets([row for row in rows if row.get(JUDGE_SCORE) is not None], splits)


def lines_of_judged(rows: Sequence[Row]) -> list[list[str]]:
    """The table of sets as text, heads first; empty for fewer than two sets, and where nothing is judged."""
    means, splits = means_of_judged(rows), list(dict.fromkeys(row["split"] for row in rows))
    if len(splits) < 2 or not means:
        return []
    lines = [["set", "judged", *map(name_of, means)]]
    for split in splits:
        lines.append([split, num_judged([row for row in rows if row["split"] == split])])
        lines[-1] += [_cell(mean["sets"][split]) for mean in means]
    return [*lines, [MEAN, num_judged(rows), *map(_cell, means)]]


def num_judged(rows: Sequence[Row]) -> str:
    """`38 of 40` answers."""
    return f"{sum(row.get(NUM_JUDGED, 0) for row in rows)} of {sum(row['num_samples'] for row in rows)}"


def caption_of(rows: Sequence[Row], judged: Mapping[str, Any] | None) -> str:
    """Who judged, and how many; empty where nothing is judged."""
    if judged is None or not any(JUDGE_SCORE in row for row in rows):
        return ""
    reasons = Counter(one["problem"] for one in judged.get("missing", ()))
    missing = "".join(f"; missing, {count}: {reason}" for reason, count in reasons.most_common(5))
    return f"{judged['model']}, protocol {judged['protocol']}: {num_judged(rows)} answers judged{missing}."


def _cell(one: Mapping[str, Any]) -> str:
    return f"{percent(one['score'])} ({percent(one['keep_ratio'])})"
