"""Rows of the summary, from the result lines alone, so that a resumed evaluation equals an uninterrupted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from gp.eval.bootstrap import accuracy_intervals
from gp.eval.costs import RowCost
from gp.eval.plan import UNPRUNED, Method
from gp.eval.results import Result
from gp.metrics import AnswerScores
from gp.metrics.mask import scores_from_counts

DECIMALS = 6


def summarize(
    split: str,
    results: Mapping[Method, Mapping[str, Result]],
    costs: Mapping[Method, RowCost],
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row per method, of one split.

    All rows are over the same samples, those that every method has finished: an earlier evaluation with more samples
    may have left more of some rows.

    Args:
        split: its name.
        results: row -> id -> result; `none` is among them.
        costs: of every row.
        seed: of the bootstrap, which draws the same questions for all rows.

    Raises:
        ValueError: no sample is common to all rows.
    """
    common = sorted(set.intersection(*(set(row) for row in results.values())))  # the order must not depend on files
    if not common:
        raise ValueError(f"split {split!r}: no sample was answered by every method")
    unpruned = [results[UNPRUNED][key] for key in common]
    correct = np.array([[row[key].correct for key in common] for row in results.values()])
    intervals = accuracy_intervals(correct, seed).round(DECIMALS).tolist()
    return [
        summarize_row(split, method, [row[key] for key in common], unpruned, interval, costs[method])
        for (method, row), interval in zip(results.items(), intervals)
    ]


def summarize_row(
    split: str,
    method: Method,
    results: Sequence[Result],
    unpruned: Sequence[Result],
    interval: Sequence[float],
    cost: RowCost,
) -> dict[str, Any]:
    """The keys of a row of `summary.json`.

    split, pruner, budget (null: the method's own decision), matched (whether its budget is what `glimpse` kept);
    shares, mean over samples: keep_ratio, visual tokens that the last layer saw / all; cache_ratio, visual entries in
    the KV cache / all, mean over layers: the realised budget; compute_ratio, visual tokens that the prefill worked on
    / all, mean over layers; kv_keep_ratio, entries in the KV cache / all, text included;
    answer_accuracy with its 95 % bootstrap interval answer_accuracy_ci95 [low, high], answer_accuracy_unpruned, and
    agreement: share of the answers that equal the un-pruned model's;
    mask_iou, mask_precision, mask_recall, mask_f1: from counts of visual tokens added up over all samples;
    evidence_recall: mean over samples of the kept share of the evidence;
    prefill_ratio, decode_ratio, peak_mib, kv_cache_mib: see `RowCost`; num_samples.

    Args:
        split: name of the split.
        method: the row.
        results: of the row.
        unpruned: of `none`, for the same samples in the same order.
        interval: of the accuracy.
        cost: of the row.
    """
    answers = AnswerScores(sync_on_compute=False)  # the lines are those of all processes already
    answers.update([r.prediction for r in results], [r.answer for r in results], [r.prediction for r in unpruned])
    scores = answers.compute()
    masks = scores_from_counts(torch.tensor([[r.tp, r.fp, r.fn] for r in results]).sum(0))
    shares = {
        "keep_ratio": _mean([r.num_kept / r.num_visual for r in results]),
        "cache_ratio": _mean([r.visual_cached / r.num_visual for r in results]),
        "compute_ratio": _mean([r.visual_run / r.num_visual for r in results]),
        "kv_keep_ratio": _mean([r.kv_kept / r.kv_full for r in results]),
    }
    names = ("answer_accuracy", "answer_accuracy_unpruned", "agreement")
    answered = {name: round(float(scores[name]), DECIMALS) for name in names}
    evidence = {
        **{f"mask_{name}": float(value) for name, value in masks.items()},
        "evidence_recall": _mean([r.tp / (r.tp + r.fn) for r in results if r.tp + r.fn]),
    }
    return {
        "split": split,
        "pruner": method.pruner,
        "budget": method.budget,
        "matched": method.matched,
        **{name: round(value, DECIMALS) for name, value in shares.items()},
        **answered,
        "answer_accuracy_ci95": list(interval),
        **{name: round(value, DECIMALS) for name, value in evidence.items()},
        **asdict(cost),
        "num_samples": len(results),
    }


def _mean(values: Sequence[float]) -> float:
    """0 for none at all, as the metrics have it."""
    return sum(values) / max(len(values), 1)
