"""Rows of the summary, from the result lines alone, so that a resumed evaluation equals an uninterrupted one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gp.eval.plan import UNPRUNED, Method
from gp.eval.results import Result
from gp.eval.timing import Timing
from gp.metrics import AnswerScores
from gp.metrics.mask import scores_from_counts

DECIMALS = 6


def summarize(
    split: str, results: Mapping[Method, Mapping[str, Result]], timings: Mapping[Method, Timing]
) -> list[dict[str, Any]]:
    """One row a method of one split.

    All rows are over the same samples, those that every method has finished: an earlier evaluation with more samples
    may have left more of some rows.

    Raises:
        ValueError: no sample is common to all rows.
    """
    common = [key for key in results[UNPRUNED] if all(key in row for row in results.values())]
    if not common:
        raise ValueError(f"split {split!r}: no sample was answered by every method")
    unpruned = [results[UNPRUNED][key] for key in common]
    return [
        summarize_row(split, method, [row[key] for key in common], unpruned, timings[method])
        for method, row in results.items()
    ]


def summarize_row(
    split: str, method: Method, results: Sequence[Result], unpruned: Sequence[Result], timing: Timing
) -> dict[str, Any]:
    """The keys of a row of `summary.json`.

    split, pruner, budget (null: the method's own decision), matched (whether its budget is what `glimpse` kept);
    keep_ratio and kv_keep_ratio: mean over samples of kept / all visual tokens, and of entries in the KV cache;
    answer_accuracy with its standard error answer_accuracy_se, answer_accuracy_unpruned, and agreement: share of the
    answers that equal the un-pruned model's;
    mask_iou, mask_precision, mask_recall, mask_f1: from counts of visual tokens added up over all samples;
    evidence_recall: mean over samples of the kept share of the evidence;
    prefill_ratio, decode_ratio: see `Timing`; num_samples.

    Args:
        split: name of the split.
        method: the row.
        results: of the row.
        unpruned: of `none`, for the same samples in the same order.
        timing: of the row.
    """
    answers = AnswerScores()
    answers.update([r.prediction for r in results], [r.answer for r in results], [r.prediction for r in unpruned])
    scores = answers.compute()
    masks = scores_from_counts(torch.tensor([[r.tp, r.fp, r.fn] for r in results]).sum(0))
    accuracy = float(scores["answer_accuracy"])
    figures = {
        "keep_ratio": _mean([r.num_kept / r.num_visual for r in results]),
        "kv_keep_ratio": _mean([r.kv_kept / r.kv_full for r in results]),
        "answer_accuracy": accuracy,
        "answer_accuracy_se": math.sqrt(accuracy * (1 - accuracy) / len(results)),
        "answer_accuracy_unpruned": float(scores["answer_accuracy_unpruned"]),
        "agreement": float(scores["agreement"]),
        **{f"mask_{name}": float(value) for name, value in masks.items()},
        "evidence_recall": _mean([r.tp / (r.tp + r.fn) for r in results if r.tp + r.fn]),
    }
    return {
        "split": split,
        "pruner": method.pruner,
        "budget": method.budget,
        "matched": method.matched,
        **{name: round(value, DECIMALS) for name, value in figures.items()},
        "prefill_ratio": timing.prefill_ratio,
        "decode_ratio": timing.decode_ratio,
        "num_samples": len(results),
    }


def _mean(values: Sequence[float]) -> float:
    """0 for none at all, as the metrics have it."""
    return sum(values) / max(len(values), 1)
