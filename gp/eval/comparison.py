"""How every row compares with one of them, question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gp.eval.bootstrap import paired_differences
from gp.eval.plan import Method
from gp.eval.results import Result
from gp.metrics import SCORERS

DECIMALS = 6
FIGURES = ("difference", "difference_ci95", "difference_p")


def compare(
    results: Mapping[Method, Mapping[str, Result]], ids: Sequence[str], scorer: str, reference: Method, seed: int = 0
) -> tuple[np.ndarray, dict[Method, dict[str, Any]]]:
    """Scores the answers of every row, and holds them against those of one row to the same questions.

    Args:
        results: row -> id -> result.
        ids: of the questions; all rows have them.
        scorer: name of a scorer.
        reference: the row that all are compared with.
        seed: of the bootstrap.

    Returns:
        Scores [rows, ids] in 0..1; and row -> `reference`, the label of that row, `difference`, `difference_ci95` [low,
        high] and `difference_p`, see `paired_differences`: null in the row itself.
    """
    score = SCORERS[scorer]
    scores = np.array([[score(row[key].prediction, row[key].answer) for key in ids] for row in results.values()])
    found = paired_differences(scores, scores[list(results).index(reference)], seed)
    compared = {}
    for method, *figures in zip(results, *(part.round(DECIMALS).tolist() for part in found), strict=True):
        shown = figures if method != reference else [None] * len(FIGURES)
        compared[method] = {"reference": reference.label, **dict(zip(FIGURES, shown, strict=True))}
    return scores, compared
