"""Scorers: against references written another way, published examples, and hand-made cases."""

from __future__ import annotations

import doctest
import itertools
import random
from functools import lru_cache

import pytest

from gp.config.schema import SCORERS as NAMES
from gp.metrics import SCORERS, AnswerScorers, choice, relaxed, vqa
from gp.metrics import anls as anls_module
from gp.metrics import containment as containment_module
from gp.metrics.anls import anls
from gp.metrics.choice import choice_letter
from gp.metrics.containment import containment
from gp.metrics.relaxed import relaxed_accuracy
from gp.metrics.vqa import normalize_vqa, vqa_accuracy


@pytest.mark.parametrize("module", [anls_module, choice, containment_module, relaxed, vqa], ids=lambda m: m.__name__)
def test_examples_in_the_docs(module):
    result = doctest.testmod(module)
    assert result.failed == 0 and result.attempted > 0


def edits(one: str, other: str) -> int:
    """Levenshtein's recursion, as he wrote it."""

    @lru_cache(None)
    def of(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (one[i - 1] != other[j - 1]))

    return of(len(one), len(other))


def test_anls_against_the_recursion():
    rng = random.Random(0)
    seen = set()
    for _ in range(200):
        one, other = ("".join(rng.choices("abc", k=rng.randint(0, 8))) for _ in range(2))
        share = edits(one, other) / max(len(one), len(other), 1)
        assert anls(one, other) == pytest.approx(1 - share if share <= 0.5 else 0)
        seen.add(anls(one, other) in (0, 1))
    assert seen == {True, False}


def test_anls_counts_half_and_no_less():
    assert anls("ab", "ac") == 0.5 and anls("abc", "axy") == 0


def test_vqa_accuracy_against_leaving_out_by_lists():
    """The challenge's way: each person is left out, and the others are asked."""
    for answers in itertools.product(["red", "Blue.", "the red"], repeat=5):
        people = [*answers, "two"]
        scores = []
        for left_out in range(len(people)):
            others = people[:left_out] + people[left_out + 1 :]
            scores.append(min(1, sum(normalize_vqa(other) == "red" for other in others) / 3))
        assert vqa_accuracy("Red", people) == pytest.approx(sum(scores) / len(scores))


@pytest.mark.parametrize(
    ("agreed", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)]
)  # the challenge's table for ten people
def test_vqa_accuracy_of_ten(agreed, score):
    assert vqa_accuracy("cat", ["cat"] * agreed + ["dog"] * (10 - agreed)) == pytest.approx(score)


def test_vqa_normal_form():
    assert normalize_vqa("Don't stop!") == normalize_vqa("dont stop")
    assert normalize_vqa("None") == "0" and normalize_vqa("an apple a day") == "apple day"
    assert vqa_accuracy("2", "Two") == 1 and vqa_accuracy("3", "two") == 0
    with pytest.raises(ValueError, match="at least one answer"):
        vqa_accuracy("x", [])


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        ("95", "100", 1), ("94.9", "100", 0), ("105", "100", 1), ("-95", "-100", 1), ("-100", "100", 0),
        ("50%", "0.5", 1), ("50%", "50", 0), ("0", "0", 1), ("0.01", "0", 0),
        ("Yes ", "yes", 1), ("yes", "no", 0), ("nan", "NaN", 1), ("nan", "1", 0), ("about 5", "5", 0),
    ],
)  # fmt: skip
def test_relaxed_accuracy(said, right, score):
    assert relaxed_accuracy(said, right) == score


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"), ("a", "A"), ("(C)", "C"), ("B.", "B"), ("B. the red one", "B"), ("(D) left", "D"), ("B: x", "B"),
        ("The answer is C.", "C"), ("Answer: (b)", "B"), ("It must be (B), I think", "B"), ("Option D", "D"),
        ("A dog sits there.", None), ("I see a cat", None), ("", None), ("red", None), ("AB", None),
    ],
)  # fmt: skip
def test_choice_letter(text, letter):
    assert choice_letter(text) == letter


def test_choice():
    score = SCORERS["choice"]
    assert score("The answer is B.", "B") == 1 and score("A", "B") == 0 and score("A dog", "A") == 0
    assert score("Red", "red") == 1 and score("B", "red") == 0  # an answer without a letter


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        ("the bus is red", "red", 1), ("the bus is red.", "Red!", 1), ("reddish", "red", 0),
        ("bus stop", "stop bus", 0),
        ("a big red bus", "big bus", 0), ("45", "4", 0), ("x", "...", 0), ("...", "...", 1),
    ],
)  # fmt: skip
def test_containment(said, right, score):
    assert containment(said, right) == score


def test_metric_is_the_mean_of_each_scorer():
    pairs = [("B.", "B"), ("stop", "shop"), ("104", "100"), ("it is red", "red"), ("", "x")]
    metric = AnswerScorers(tuple(SCORERS))
    metric.update(*zip(*pairs[:2]))
    metric.update([], [])
    metric.update(*zip(*pairs[2:]))
    for name, value in metric.compute().items():
        assert float(value) == pytest.approx(sum(SCORERS[name](*pair) for pair in pairs) / len(pairs)), name
    with pytest.raises(ValueError, match="expected as many predictions as answers, got 1 and 2"):
        metric.update(["a"], ["b", "c"])
    with pytest.raises(ValueError, match="unknown scorer 'f1', expected some of exact_match, anls"):
        AnswerScorers(["f1"])


def test_the_options_know_every_scorer():
    assert tuple(SCORERS) == NAMES
