"""Rows of the summary: what the metrics of all processes say, with costs, and intervals from the result lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from gp.eval.bootstrap import accuracy_intervals
from gp.eval.comparison import compare
from gp.eval.costs import RowCost
from gp.eval.plan import UNPRUNED, Method
from gp.eval.results import Result
from gp.eval.scores import EXACT_MATCH, VIP_ECE

DECIMALS = 6
COUNT = "num_samples"


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
        (whether its budget is what `glimpse` kept), threshold (of a row of eval.thresholds);
        shares, mean over samples: keep_ratio, visual tokens that the last layer saw / all; cache_ratio, visual entries
        in the KV cache / all, mean over layers: the realised budget; compute_ratio, visual tokens that the prefill
        worked on / all, mean over layers; kv_keep_ratio, entries in the KV cache / all, text included;
        answer_accuracy, answer_accuracy_unpruned, and agreement: share of the answers that equal the un-pruned model's;
        answer_accuracy_ci95, the 95 % bootstrap interval [low, high] of the accuracy;
        reference, the label of the row that this one is compared with; difference, difference_ci95 and difference_p:
        of the split's score, this row's less that row's, see `gp.eval.comparison`;
        mask_iou, mask_precision, mask_recall, mask_f1: from counts of visual tokens added up over all samples;
        evidence_recall, mask_mean_iou: means over samples of the kept share of the evidence, and of the IoU;
        of rows that look closer alone: zoomed, crops_per_question, crop_recall, encoded_ratio, see
        `gp.metrics.CropShares`;
        vip_ece: expected calibration error of the importance that `glimpse` predicts, in its row without a budget (null
        elsewhere);
        prefill_ratio, decode_ratio, peak_mib, kv_cache_mib, prefill_ms, decode_ms, questions_per_s: see `RowCost`;
        num_samples.

    Raises:
        ValueError: no sample is common to all rows.
    """
    common = sorted(set.intersection(*(set(row) for row in results.values())))  # the order must not depend on files
    if not common:
        raise ValueError(f"split {split!r}: no sample was answered by every method")
    correct = np.array([[row[key].correct for key in common] for row in results.values()])
    intervals = accuracy_intervals(correct, seed).round(DECIMALS).tolist()
    compared = compare(results, common, scorer, reference, seed)[1]
    return [
        {
            "split": split,
            "pruner": method.pruner,
            "budget": method.budget,
            "matched": method.matched,
            "threshold": method.threshold,
            **{name: round(value, DECIMALS) for name, value in scores[method].items() if name not in (COUNT, VIP_ECE)},
            VIP_ECE: round(scores[method][VIP_ECE], DECIMALS) if VIP_ECE in scores[method] else None,
            "answer_accuracy_ci95": interval,
            **compared[method],
            **asdict(costs[method]),
            COUNT: scores[method][COUNT],
        }
        for method, interval in zip(results, intervals, strict=True)
    ]
