"""A whole evaluation of a micro run: its figures by hand, its promises, its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gp.eval import evaluate, load_run
from tests.support.eval_results import OVERRIDES, lines_of, rows_of
from tests.support.micro_eval import NUM_SAMPLES, stock_answers

pytestmark = pytest.mark.core

ORDER = [
    ("none", None),
    ("glimpse", None),
    ("glimpse", 0.5),
    ("random", None),
    ("random", 0.5),
    ("oracle", None),
]


def same(prediction: str, answer: str) -> bool:
    """Exact match by hand, as far as the vocabulary of these tests goes: a question mark counts for nothing."""
    return prediction.replace("?", "").split() == answer.replace("?", "").split()


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def test_rows_and_their_order(evaluated):
    rows = json.loads((evaluated / "summary.json").read_text())
    assert [(row["pruner"], row["budget"]) for row in rows] == ORDER  # none although it was not asked for
    assert all(row["split"] == "test" and row["num_samples"] == NUM_SAMPLES for row in rows)
    assert [row["matched"] for row in rows] == [False, False, False, True, False, False]


@pytest.mark.parametrize(("pruner", "budget"), ORDER)
def test_figures_by_hand(evaluated, pruner, budget):
    row = rows_of(evaluated)[pruner, budget]
    lines = lines_of(evaluated, f"{pruner}-{budget or 'own'}")
    plain = lines_of(evaluated, "none-own")
    assert len(lines) == NUM_SAMPLES
    tp, fp, fn = (sum(line[name] for line in lines.values()) for name in ("tp", "fp", "fn"))
    accuracy = mean(same(line["prediction"], line["answer"]) for line in lines.values())
    expected = {
        "keep_ratio": mean(line["num_kept"] / line["num_visual"] for line in lines.values()),
        "cache_ratio": mean(line["visual_cached"] / line["num_visual"] for line in lines.values()),
        "compute_ratio": mean(line["visual_run"] / line["num_visual"] for line in lines.values()),
        "kv_keep_ratio": mean(line["kv_kept"] / line["kv_full"] for line in lines.values()),
        "answer_accuracy": accuracy,
        "answer_accuracy_unpruned": mean(same(line["prediction"], line["answer"]) for line in plain.values()),
        "agreement": mean(same(line["prediction"], plain[key]["prediction"]) for key, line in lines.items()),
        "mask_iou": tp / (tp + fp + fn),
        "mask_recall": tp / (tp + fn),
        "mask_precision": tp / (tp + fp),
        "mask_f1": 2 * tp / (2 * tp + fp + fn),
        "evidence_recall": mean(line["tp"] / (line["tp"] + line["fn"]) for line in lines.values()),
        "mask_mean_iou": mean(line["tp"] / (line["tp"] + line["fp"] + line["fn"]) for line in lines.values()),
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=2e-6)
    low, high = row["answer_accuracy_ci95"]
    assert 0 <= low <= accuracy <= high <= 1
    assert row["prefill_ratio"] > 0 and row["decode_ratio"] > 0 and row["kv_cache_mib"] > 0


def test_lines_are_consistent(evaluated):
    for pruner, budget in ORDER:
        for line in lines_of(evaluated, f"{pruner}-{budget or 'own'}").values():
            assert line["tp"] + line["fp"] == line["num_kept"] <= line["num_visual"]
            assert line["visual_cached"] == line["num_kept"]  # all of these forget what they dropped, in every layer
            dropped_after = {"none": 4, "glimpse": 2, "random": 2, "oracle": 2}[pruner]  # of 4 layers
            late = (4 - dropped_after) * line["num_kept"]
            assert line["visual_run"] == (dropped_after * line["num_visual"] + late) / 4
            assert line["kv_full"] - line["kv_kept"] == line["num_visual"] - line["num_kept"]
            assert line["correct"] == same(line["prediction"], line["answer"])
            assert line["prefill_s"] > 0 and line["decode_s"] > 0


def test_unpruned_answers_are_those_of_plain_transformers(evaluated, micro):
    lines = lines_of(evaluated, "none-own")
    samples = micro.samples()
    assert [lines[sample.id]["prediction"] for sample in samples] == stock_answers(micro)
    row = rows_of(evaluated)["none", None]
    assert (row["answer_accuracy"], row["agreement"], row["keep_ratio"], row["kv_keep_ratio"]) == (0.5, 1, 1, 1)
    assert (row["prefill_ratio"], row["decode_ratio"]) == (1, 1)


def test_the_glimpse_prunes_something_and_changes_answers(evaluated):
    row = rows_of(evaluated)["glimpse", None]
    assert 0.1 < row["keep_ratio"] < 0.9 and row["kv_keep_ratio"] < 1 and row["agreement"] < 1


def test_random_keeps_as_many_tokens_of_each_sample_as_the_glimpse(evaluated):
    kept = {label: lines_of(evaluated, label) for label in ("glimpse-own", "random-own")}
    assert {k: v["num_kept"] for k, v in kept["random-own"].items()} == {
        k: v["num_kept"] for k, v in kept["glimpse-own"].items()
    }
    assert any(kept["random-own"][k]["tp"] != v["tp"] for k, v in kept["glimpse-own"].items())


def test_a_budget_is_exact_and_the_oracle_keeps_the_evidence(evaluated):
    for pruner in ("glimpse", "random"):
        for line in lines_of(evaluated, f"{pruner}-0.5").values():
            assert line["num_kept"] == line["num_visual"] // 2
    assert rows_of(evaluated)["oracle", None]["mask_iou"] == 1


def test_lines_name_their_sample(evaluated, micro):
    lines = lines_of(evaluated, "none-own")
    for number, sample in enumerate(micro.samples()):
        line = lines[sample.id]
        assert (line["number"], line["image_name"]) == (number, f"{number:04d}.png")
        assert (line["dataset"], line["source_id"]) == ("small", "s0")
        words = len(line["prediction"].split())
        assert words <= line["num_new_tokens"] <= 4  # of which the last may end the answer
    assert {line["num_new_tokens"] for line in lines.values()} != {0}


def test_without_costs_nothing_is_measured(micro, tmp_path):
    overrides = ["eval.pruners=[oracle]", "eval.costs=false", "eval.overlays=0"]
    rows = evaluate(*load_run(micro.ckpt, overrides), tmp_path)
    assert all(
        row[key] is None for row in rows for key in ("prefill_ratio", "decode_ratio", "peak_mib", "kv_cache_mib")
    )
    assert not (tmp_path / "costs.json").exists() and (tmp_path / "report.html").is_file()


def test_keeping_everything_changes_no_answer(micro, tmp_path):
    overrides = ["eval.pruners=[glimpse]", "prune.threshold=0.0", "eval.overlays=0"]
    rows = evaluate(*load_run(micro.ckpt, overrides), tmp_path)
    assert rows[1]["pruner"] == "glimpse"
    assert (rows[1]["keep_ratio"], rows[1]["agreement"], rows[1]["answer_accuracy"]) == (1, 1, 0.5)


def test_resumed_equals_uninterrupted(copied, micro):
    before = (copied / "summary.json").read_text()
    samples = copied / "samples"
    cut_inside_a_line(samples / "test-glimpse-own.jsonl", keep=5)
    cut_inside_a_line(samples / "test-random-0.5.jsonl", keep=1)  # breaks a batch of 4 apart
    (samples / "test-random-own.jsonl").unlink()
    (copied / "summary.json").unlink()
    kept_lines = (samples / "test-glimpse-own.jsonl").read_text().splitlines()[:5]
    evaluate(*load_run(micro.ckpt, OVERRIDES), copied)
    assert (copied / "summary.json").read_text() == before
    assert (samples / "test-glimpse-own.jsonl").read_text().splitlines()[:5] == kept_lines  # not made again
    for label in ("none-own", "glimpse-own", "random-0.5"):
        assert len(lines_of(copied, label)) == NUM_SAMPLES  # nor a second time


def cut_inside_a_line(path: Path, keep: int) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:keep]) + lines[keep][:30])


def test_an_evaluation_can_grow(copied, micro):
    """Another split, a budget more, fewer samples asked for: nothing is refused, nothing done is lost."""
    overrides = ["eval.pruners=[random]", "eval.budgets=[0.25]", "eval.splits=[test,part]", "eval.num_samples=6"]
    rows = evaluate(*load_run(micro.ckpt, overrides), copied)
    assert [(row["split"], row["pruner"], row["num_samples"]) for row in rows] == [
        ("test", "none", 6),
        ("test", "random", 6),
        ("part", "none", 5),
        ("part", "random", 5),
    ]
    rows = evaluate(*load_run(micro.ckpt, [*overrides, "eval.num_samples=null"]), copied)
    assert [row["num_samples"] for row in rows] == [12, 12, 5, 5]


def test_a_model_without_a_glimpse_needs_budgets(micro, tmp_path):
    model, config = load_run(micro.ckpt, ["eval.pruners=[random]", "eval.overlays=0"])
    model.glimpse = None
    with pytest.raises(ValueError, match="no trained glimpse"):
        evaluate(model, config, tmp_path)
    config.eval.budgets = [0.5]
    assert [row["pruner"] for row in evaluate(model, config, tmp_path)] == ["none", "random"]
