"""Exact match and the counts made of it."""

from __future__ import annotations

import doctest

import pytest

from gp.metrics import AnswerScores, answers, exact_match, normalize_answer


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("4 7", "4 7"),
        (" Red\n", "red"),
        ("The  red, big bus.", "red big bus"),
        ("A", "a"),
        ("a dog", "dog"),
        ("the", "the"),
        ("“Yes!”", "yes"),
        ("(B)", "b"),
        ("-3", "-3"),
        (".5", ".5"),
        ("3.5.", "3.5"),
        ("$5", "$5"),
        ("50%", "50%"),
        ("\uff21\uff22", "ab"),
        ("straße", "strasse"),
        ("...", ""),
        ("", ""),
    ],
)
def test_normal_form(text, normal):
    assert normalize_answer(text) == normal
    assert normalize_answer(normal) == normal


def test_examples_in_the_docs():
    assert doctest.testmod(answers).failed == 0


def test_exact_match():
    assert exact_match("The bus.", "bus") and exact_match("4 7", " 4  7")
    assert not exact_match("47", "4 7") and not exact_match("3.5", "35") and not exact_match("bus stop", "bus")


def test_scores_by_hand():
    metric = AnswerScores()
    metric.update(["red", "blue", "4 7"], ["Red.", "red", "4 7"], ["red", "red", "4 8"])
    metric.update(["x"], ["x"], ["x"])
    scores = {name: float(score) for name, score in metric.compute().items()}
    assert scores == {
        "answer_accuracy": 3 / 4,
        "answer_accuracy_unpruned": 3 / 4,
        "agreement": 2 / 4,
        "num_samples": 4,
        "num_compared": 4,
    }


def test_without_the_unpruned_model():
    metric = AnswerScores()
    metric.update(["red"], ["blue"])
    assert {name: float(score) for name, score in metric.compute().items()} == {"answer_accuracy": 0, "num_samples": 1}


@pytest.mark.parametrize("lists", [(["a"], ["a", "b"]), (["a"], ["a"], ["a", "b"]), ("ab", ["a", "b"])])
def test_lists_of_different_lengths_are_refused(lists):
    with pytest.raises(ValueError, match=r"predictions .*answers"):
        AnswerScores().update(*lists)
