"""Sentences of the headline, from rows made by hand."""

from __future__ import annotations

from gp.eval.headline import headline

SCORES = {"one": "exact_match"}


def row(pruner: str, score: float, keep: float, split: str = "one", budget: float | None = None, **more) -> dict:
    figures = {"answer_accuracy": score, "anls": score / 2, "keep_ratio": keep, "num_samples": 40, "matched": False}
    compared = {"reference": "none-own", "difference": None, "difference_ci95": None, "prefill_ratio": None}
    return {"split": split, "pruner": pruner, "budget": budget, "threshold": None, **figures, **compared, **more}


def test_the_own_decision_of_glimpse_comes_first():
    own = row("glimpse", 0.95, 0.1, difference=-0.025, difference_ci95=[-0.05, 0.001], prefill_ratio=0.853)
    rows = [row("none", 0.975, 1), row("random", 0.9, 0.1), row("glimpse", 0.9, 0.05, budget=0.05), own]
    assert headline(rows, SCORES) == [
        "one: glimpse own scores 95.0 % with 10.0 % of the visual tokens (exact_match, 40 questions); without pruning "
        "97.5 %, a difference of -2.5 points [-5.0, +0.1]. A prefill takes 0.85 of the un-pruned time."
    ]


def test_another_reference_and_another_scorer():
    rows = [row("none", 0.8, 1, reference="random-0.1"), row("fastv", 0.6, 0.25, budget=0.25, reference="random-0.1")]
    rows[1] |= {"difference": 0.1, "difference_ci95": [0.0, 0.2]}
    (said,) = headline(rows, {"one": "anls"})
    assert said == (
        "one: fastv 25 % scores 30.0 % with 25.0 % of the visual tokens (anls, 40 questions); without pruning 40.0 %."
    )


def test_nothing_is_pruned():
    (said,) = headline([row("none", 0.8, 1), row("oracle", 0.9, 0.1)], SCORES)
    assert said == "one: without pruning 80.0 % (exact_match, 40 questions)."


def test_of_many_sets_their_mean_is_said():
    splits = ("a", "b", "c", "d")
    rows = [
        row(*of, split) for i, split in enumerate(splits) for of in (("none", 0.8 + i / 50, 1), ("glimpse", 0.7, 0.1))
    ]
    assert headline(rows, dict.fromkeys(splits, "exact_match")) == [
        "Mean of 4 sets: glimpse own scores 70.0 % with 10.0 % of the visual tokens; without pruning 83.0 %."
    ]
