"""Rows of the summary: the samples that all methods share, and shares as means over samples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gp.eval.costs import RowCost
from gp.eval.plan import UNPRUNED, Method
from gp.eval.results import Result
from gp.eval.scores import compute_rows, row_metrics, update_rows
from gp.eval.summary import summarize
from gp.metrics import SCORERS

HALF = Method("random", 0.5)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "results.md"


def result(key: str, num_kept: int, prediction: str = "red", tp: int = 1, fn: int = 0) -> Result:
    right = prediction == "red"
    kept, fp = num_kept, num_kept - tp
    sample = (key, 0, "gqa", "q", "a.jpg", "what ?", "red")
    return Result(*sample, prediction, 2, right, 8, num_kept, 6.0, kept, tp, fp, fn, 10.0 + kept, 20, 0.1, 0.2)


def rows_of(results: dict, costs: dict) -> list[dict]:
    """The summary of what was fed in batches of one."""
    common = [key for key in results[UNPRUNED] if all(key in row for row in results.values())]
    metrics = {method: row_metrics() for method in results}
    for key in common:
        update_rows(metrics, {method: [row[key]] for method, row in results.items()})
    return summarize("test", compute_rows(metrics), costs, results)


def test_shares_are_means_over_the_samples_that_all_rows_have():
    whole = {key: result(key, 8) for key in ("a", "b", "only here")}
    pruned = {"a": result("a", 2), "b": result("b", 4, "blue", tp=1, fn=3)}
    costs = {UNPRUNED: RowCost(1.0, 1.0, None, 2.0), HALF: RowCost(0.5, 0.7, 3.0, 1.0)}
    first, row = rows_of({UNPRUNED: whole, HALF: pruned}, costs)
    assert first["num_samples"] == row["num_samples"] == 2
    assert (row["keep_ratio"], row["cache_ratio"], row["compute_ratio"]) == ((2 / 8 + 4 / 8) / 2, 3 / 8, 6 / 8)
    assert row["kv_keep_ratio"] == (12 + 14) / 2 / 20
    assert (row["answer_accuracy"], row["answer_accuracy_unpruned"], row["agreement"]) == (0.5, 1.0, 0.5)
    assert row["mask_recall"] == pytest.approx(2 / 5) and row["evidence_recall"] == pytest.approx((1 + 1 / 4) / 2)
    assert (row["prefill_ratio"], row["decode_ratio"], row["peak_mib"], row["kv_cache_mib"]) == (0.5, 0.7, 3.0, 1.0)


def test_rows_without_a_common_sample_are_refused():
    costs = dict.fromkeys((UNPRUNED, HALF), RowCost(1.0, 1.0, None, 1.0))
    with pytest.raises(ValueError, match="split 'test': no sample"):
        rows_of({UNPRUNED: {"a": result("a", 8)}, HALF: {"b": result("b", 2)}}, costs)


def test_rows_with_the_same_first_figures_stay_apart():
    """torchmetrics would let metrics of equal states share them from then on."""
    metrics = {UNPRUNED: row_metrics(), HALF: row_metrics()}
    whole, half = result("a", 8), result("b", 4)
    update_rows(metrics, {UNPRUNED: [whole], HALF: [whole]})
    update_rows(metrics, {UNPRUNED: [whole], HALF: [half]})
    figures = compute_rows(metrics)
    assert (figures[UNPRUNED]["keep_ratio"], figures[HALF]["keep_ratio"]) == (1, 0.75)
    assert figures[HALF]["cache_ratio"] == 0.75 and figures[HALF]["evidence_recall"] == 1


def test_the_page_of_results_has_every_key():
    table = PAGE.read_text().partition("| key | meaning |")[2].partition("\n\n")[0]
    named = {key for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}
    costs = {UNPRUNED: RowCost(1.0, 1.0, None, 2.0)}
    (row,) = rows_of({UNPRUNED: {"a": result("a", 8)}}, costs)
    scorers = {name for name in SCORERS if name != "exact_match"}
    assert named == {*row, *scorers, "judge_score", "num_judged"}
