"""Which rows run, and with which options."""

from __future__ import annotations

import pytest

from gp.eval.plan import OWN_GLIMPSE, UNPRUNED, Method, known_pruners, options_of, plan
from gp.types import PruneOptions
from tests.glimpses import micro_glimpse
from tests.tiny_models import tiny_qwen


@pytest.fixture(scope="module")
def model():
    return micro_glimpse(tiny_qwen())


def test_what_rows_need_runs_first_even_if_not_asked_for(model):
    assert plan(model, ["oracle"], [None]) == [UNPRUNED, Method("oracle")]
    assert plan(model, ["random"], [0.2]) == [UNPRUNED, Method("random", 0.2)]
    assert plan(model, ["random"], [None]) == [UNPRUNED, OWN_GLIMPSE, Method("random", None, matched=True)]


def test_all_and_repeated_names(model):
    methods = plan(model, ["all", "random"], [0.1, None, 0.1])
    assert [m.pruner for m in methods] == sorted((m.pruner for m in methods), key=known_pruners().index)
    assert {m.pruner for m in methods} == set(known_pruners())
    assert len(set(methods)) == len(methods)
    assert [m.label for m in methods if m.pruner == "glimpse"] == ["glimpse-own", "glimpse-0.1"]


@pytest.mark.parametrize(
    ("pruners", "budgets", "message"),
    [
        (["glimse"], [None], "unknown pruner 'glimse'; the nearest known one is 'glimpse'"),
        ([], [None], "eval.pruners is empty"),
        (["none"], [], "eval.budgets is empty"),
    ],
)
def test_refused(model, pruners, budgets, message):
    with pytest.raises(ValueError, match=message):
        plan(model, pruners, budgets)


def test_options():
    default = PruneOptions(threshold=0.3, max_keep_ratio=0.4, min_kept=3, anchors=("tl",))
    assert options_of(OWN_GLIMPSE, default) == default
    assert options_of(Method("glimpse", 0.2), default) == default.but(fixed_keep_ratio=0.2)
    assert options_of(Method("glimpse", 0.2), default).max_keep_ratio is None
    assert options_of(Method("oracle"), default) == PruneOptions()
    matched = options_of(Method("random", None, matched=True), default, [4, 0])
    assert matched == PruneOptions(num_keep=(4, 0), min_kept=0)
