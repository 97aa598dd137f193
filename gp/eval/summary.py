"""Rows of the summary: what the metrics of all processes say, with costs, and intervals from the result lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gp.eval.bootstrap import accuracy_intervals, paired_differences
from gp.eval.costs import RowCost
from gp.eval.plan import UNPRUNED, Method
from gp.eval.results import Result
from gp.eval.scores import EXACT_MATCH
from gp.metrics import SCORERS

DECIMALS = 6
COUNT = "num_samples"
COMPARED = ("difference", "difference_ci95", "difference_p")
NOTHING = (None,) * len(COMPARED)  # a row is not compared with itself


def summarize(
    split: str,
    scores: Mapping[Method, Mapping[str, float]],
    costs: Mapping[Method, RowCost],
    results: Mapping[Method, Mapping[str, Result]],
    seed: int = 0,
    reference: Method = UNPRUNED,
    scorer: str = EXACT_MATCH,
) -> list[dict[str, Any]]:
    """One row per method, of one split.

    All rows are over the same samples, those that every method has finished: an earlier evaluation with more samples
    may have left more of some rows.

    Args:
        split: its name.
        scores: of every row, see `gp.eval.scores`.
        costs: of every row.
        results: row -> id -> result; the intervals need single answers.
        seed: of the bootstrap, which draws the same questions for all rows.
        reference: the row that every other one is compared with.
        scorer: of the comparison, the split's first one.

    Returns:
        The rows of `summary.json`, with the keys split, pruner, budget (null: the method's own decision), matched
        (whether its budget is what `glimpse` kept);
        shares, mean over samples: keep_ratio, visual tokens that the last layer saw / all; cache_ratio, visual entries
        in the KV cache / all, mean over layers: the realised budget; compute_ratio, visual tokens that the prefill
        worked on / all, mean over layers; kv_keep_ratio, entries in the KV cache / all, text included;
        answer_accuracy, answer_accuracy_unpruned, and agreement: share of the answers that equal the un-pruned model's;
        answer_accuracy_ci95, the 95 % bootstrap interval [low, high] of the accuracy;
        reference, the label of the row that this one is compared with; difference, difference_ci95 and difference_p:
        of the split's score, this row's less that row's, see `paired_differences` (null in that row itself);
        mask_iou, mask_precision, mask_recall, mask_f1: from counts of visual tokens added up over all samples;
        evidence_recall: mean over samples of the kept share of the evidence;
        prefill_ratio, decode_ratio, peak_mib, kv_cache_mib: see `RowCost`; num_samples.

    Raises:
        ValueError: no sample is common to all rows.
    """
    common = sorted(set.intersection(*(set(row) for row in results.values())))  # the order must not depend on files
    if not common:
        raise ValueError(f"split {split!r}: no sample was answered by every method")
    correct = np.array([[row[key].correct for key in common] for row in results.values()])
    intervals = accuracy_intervals(correct, seed).round(DECIMALS).tolist()
    compared = compare(results, common, reference, scorer, seed)
    return [
        {
            "split": split,
            "pruner": method.pruner,
            "budget": method.budget,
            "matched": method.matched,
            **{name: round(value, DECIMALS) for name, value in scores[method].items() if name != COUNT},
            "answer_accuracy_ci95": interval,
            **compared[method],
            **asdict(costs[method]),
            COUNT: scores[method][COUNT],
        }
        for method, interval in zip(results, intervals, strict=True)
    ]


def compare(
    results: Mapping[Method, Mapping[str, Result]], common: Sequence[str], reference: Method, scorer: str, seed: int
) -> dict[Method, dict[str, Any]]:
    """The comparison of every row with one of them, by the keys of `summarize`; `common`: ids of the questions."""
    score = SCORERS[scorer]
    scores = np.array([[score(row[key].prediction, row[key].answer) for key in common] for row in results.values()])
    found = paired_differences(scores, scores[list(results).index(reference)], seed)
    columns = zip(results, *(part.round(DECIMALS).tolist() for part in found), strict=True)
    return {
        method: {"reference": reference.label, **dict(zip(COMPARED, figures if method != reference else NOTHING))}
        for method, *figures in columns
    }
