"""Scores by kind of question: how large the evidence and the image are, how many images there are, which category."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gp.eval.comparison import DECIMALS, compare
from gp.eval.plan import UNPRUNED, Method
from gp.eval.results import Result
from gp.eval.table import budget_text, percent
from gp.metrics import exact_match
from gp.pruners import NoPruner

Row = dict[str, Any]

CATEGORY, OTHER = "category", "other"
EVIDENCE_PERCENT = (1, 5, 20)  # of the visual tokens of a prompt
VISUAL_TOKENS = (256, 1024, 4096)
NUM_TEXT_COLUMNS = 1
LEGEND = (
    "Questions by the share of visual tokens that are evidence, by visual tokens of the prompt without pruning, by "
    "number of images and by category, where a set has them; kinds that all questions share are not shown. Score in "
    "percent, in brackets the share of visual tokens that the last layer saw, and of methods that look closer the "
    "share of the evidence that lies in their crops."
)


def break_down(
    split: str,
    results: Mapping[Method, Mapping[str, Result]],
    scorer: str,
    reference: Method = UNPRUNED,
    seed: int = 0,
    categories: Sequence[str] = (),
) -> list[Row]:
    """Figures of every row over the questions of each kind; the questions are those that all rows have answered.

    Args:
        split: its name.
        results: row -> id -> result; the un-pruned row says what kind a question is.
        scorer: the split's score.
        reference: the row that every other one is compared with.
        seed: of the bootstrap.
        categories: a question is of the one that its `source_id` begins with, before a slash.

    Returns:
        One entry per kind, group and row: `split`; `by` (evidence, visual tokens, images, category) and `group`;
        `pruner`, `budget`, `matched`; `num_samples`; `scorer` and `score`; `keep_ratio`; `agreement`; `crop_recall`,
        the share of the evidence's visual tokens that lies in crops, mean over questions, and `zoomed`, the share of
        questions with a crop (null of methods that take none); `reference`,
        `difference`, `difference_ci95`, `difference_p` as in the summary. A kind that all questions share has none.
    """
    common = sorted(set.intersection(*(set(row) for row in results.values())))
    rows = []
    for by, groups in group_questions([results[UNPRUNED][key] for key in common], categories).items():
        for group, ids in groups.items():
            head = {"split": split, "by": by, "group": group}
            rows += [{**head, **row} for row in _figures(results, ids, scorer, reference, seed)]
    return rows


def group_questions(unpruned: Sequence[Result], categories: Sequence[str] = ()) -> dict[str, dict[str, list[str]]]:
    """Kind -> group -> ids of its questions, groups in order; kinds with one group only are left out."""
    kinds: dict[str, tuple[list[str], Callable[[Result], int]]] = {
        "evidence": (
            _ranges(EVIDENCE_PERCENT, " %"),
            lambda one: bisect_right(EVIDENCE_PERCENT, evidence_percent(one)),
        ),
        "visual tokens": (_ranges(VISUAL_TOKENS, ""), lambda one: bisect_right(VISUAL_TOKENS, one.num_visual)),
        "images": ([f"{n}" for n in range(max(one.num_images for one in unpruned) + 1)], lambda one: one.num_images),
        CATEGORY: ([*categories, OTHER], lambda one: _category(one, categories)),
    }
    found = {}
    for by, (names, place) in kinds.items():
        groups: list[list[str]] = [[] for _ in names]
        for one in unpruned:
            groups[place(one)].append(one.id)
        filled = {name: ids for name, ids in zip(names, groups, strict=True) if ids}
        if len(filled) > 1:
            found[by] = filled
    return found


def evidence_percent(unpruned: Result) -> float:
    """Share of the visual tokens that are evidence, of a question that was answered without pruning."""
    return 100 * (unpruned.tp + unpruned.fn) / unpruned.num_visual


def lines_of(rows: Sequence[Row]) -> list[list[list[str]]]:
    """Tables as text, one per kind, heads first: a line per group, a column per row of the summary."""
    tables = []
    for by in dict.fromkeys(row["by"] for row in rows):
        groups: dict[str, list[Row]] = {}
        for row in (row for row in rows if row["by"] == by):
            groups.setdefault(row["group"], []).append(row)
        lines = [[by, "n", *map(_name, next(iter(groups.values())))]]
        for group, members in groups.items():
            cells = [f"{percent(row['score'])} ({', '.join(map(percent, _shares(row)))})" for row in members]
            lines.append([group, str(members[0]["num_samples"]), *cells])
        tables.append(lines)
    return tables


def _shares(row: Row) -> list[float]:
    return [row["keep_ratio"], *([row["crop_recall"]] if row["crop_recall"] is not None else [])]


def _figures(
    results: Mapping[Method, Mapping[str, Result]], ids: Sequence[str], scorer: str, reference: Method, seed: int
) -> list[Row]:
    unpruned = [results[UNPRUNED][key].prediction for key in ids]
    members = {method: [row[key] for key in ids] for method, row in results.items()}
    scores, compared = compare(results, ids, scorer, reference, seed)
    return [
        {
            "pruner": method.pruner,
            "budget": method.budget,
            "matched": method.matched,
            "threshold": method.threshold,
            "num_samples": len(ids),
            "scorer": scorer,
            "score": _mean(scored),
            "keep_ratio": _mean([one.num_kept / one.num_visual for one in row]),
            "agreement": _mean([exact_match(one.prediction, said) for one, said in zip(row, unpruned, strict=True)]),
            "crop_recall": crop_recall(row, [results[UNPRUNED][key] for key in ids]),
            "zoomed": _mean([one.num_crops > 0 for one in row]) if _takes_crops(row) else None,
            **compared[method],
        }
        for (method, row), scored in zip(members.items(), scores, strict=True)
    ]


def crop_recall(row: Sequence[Result], unpruned: Sequence[Result]) -> float | None:
    """Share of each question's evidence, in visual tokens of its images as they came, that lies in crops; mean."""
    if not _takes_crops(row):
        return None
    return _mean([(one.in_crops or 0) / max(none.tp + none.fn, 1) for one, none in zip(row, unpruned, strict=True)])


def _takes_crops(row: Sequence[Result]) -> bool:
    return all(one.num_crops is not None for one in row)


def _category(one: Result, categories: Sequence[str]) -> int:
    """Number of a question's category; of one that has none, that of `OTHER`."""
    begins = [number for number, name in enumerate(categories) if one.source_id.startswith(f"{name}/")]
    return begins[0] if begins else len(categories)


def _ranges(edges: Sequence[int], unit: str) -> list[str]:
    """Names of the ranges between edges: `below 1 %`, `1 to 5 %`, ...; each holds its lower edge."""
    between = [f"{low} to {high}{unit}" for low, high in pairwise(edges)]
    return [f"below {edges[0]}{unit}", *between, f"{edges[-1]}{unit} and more"]


def _name(row: Row) -> str:
    return row["pruner"] if row["pruner"] == NoPruner.name else f"{row['pruner']} {budget_text(row)}"


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return round(float(np.mean(values)), DECIMALS)
