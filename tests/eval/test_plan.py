"""Which rows run, and with which options."""

from __future__ import annotations

import pytest

from gp.eval.names import known_pruners
from gp.eval.plan import OWN_GLIMPSE, UNPRUNED, Method, find_reference, options_of, plan_rows
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.tiny_models import tiny_llava, tiny_qwen


@pytest.fixture(scope="module")
def model():
    return micro_glimpse(tiny_qwen())


def test_what_rows_need_runs_first_even_if_not_asked_for(model):
    assert plan_rows(model, ["oracle"], [None])[0] == [UNPRUNED, Method("oracle")]
    assert plan_rows(model, ["random"], [0.2])[0] == [UNPRUNED, Method("random", 0.2)]
    assert plan_rows(model, ["random"], [None])[0] == [UNPRUNED, OWN_GLIMPSE, Method("random", matched=True)]


def test_all_and_repeated_names(model):
    methods, left_out = plan_rows(model, ["all", "random"], [0.1, None, 0.1])
    assert [m.pruner for m in methods] == sorted((m.pruner for m in methods), key=known_pruners().index)
    assert {m.pruner for m in methods} | {one.method.pruner for one in left_out} == set(known_pruners())
    assert len(set(methods)) == len(methods)
    assert [m.label for m in methods if m.pruner == "glimpse"] == ["glimpse-own", "glimpse-0.1"]


def test_the_order_of_the_table(half_way, quarter_size):
    names = known_pruners()
    assert names[:2] == ["none", "glimpse"] and names[-2:] == ["random", "oracle"]
    assert {"half_way", "quarter_size"} <= set(names[2:-2]) and len(set(names)) == len(names)


def test_images_of_one_size_are_not_made_smaller_prompt_by_prompt(model):
    methods, left_out = plan_rows(micro_glimpse(tiny_llava()), ["downsample"], [None, 0.4])
    assert Method("downsample", 0.4) in methods
    assert [(one.method.label, "one size" in one.reason) for one in left_out] == [("downsample-own", True)]
    assert plan_rows(model, ["downsample"], [None])[1] == []


def test_budgets_that_cannot_be_met_are_left_out(model, half_way):
    methods, left_out = plan_rows(model, ["half_way", "random"], [0.4, None, 0.6])
    assert [m.label for m in methods] == ["none-own", "glimpse-own", "half_way-0.6"] + [
        f"random-{budget}" for budget in ("0.4", "own", "0.6")
    ]
    low, matched = left_out
    assert low.method == Method("half_way", 0.4) and "budget of 0.4 cannot be met" in low.reason
    # glimpse may keep one token of a prompt, which is less than half of the layers' caches
    assert matched.method == Method("half_way", None, matched=True) and "as glimpse may" in matched.reason
    with pytest.raises(ValueError, match=r"none of the rows .* \(half_way-0\.4: .* cannot be met"):
        plan_rows(model, ["half_way", "none"], [0.4])


def test_a_setting_can_make_a_budget_reachable(half_way):
    own = micro_glimpse(tiny_qwen())
    own.pruner_settings = {"half_way": {"layer": 0}}
    assert Method("half_way", 0.4) in plan_rows(own, ["half_way"], [0.4])[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"halfway": {}}, "eval.methods.halfway: no pruner 'halfway'"),
        ({"half_way": {"layr": 1}}, "eval.methods.half_way: pruner 'half_way' has no setting 'layr'; it has layer"),
        ({"half_way": {"layer": "x"}}, "eval.methods.half_way.layer must be a whole number"),
        ({"glimpse": {"layer": 1}}, "eval.methods.glimpse: it is as it was trained"),
    ],
)
def test_refused_settings(half_way, settings, message):
    own = micro_glimpse(tiny_qwen())
    own.pruner_settings = settings
    with pytest.raises(ValueError, match=message):
        plan_rows(own, ["random"], [0.5])


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
        plan_rows(model, pruners, budgets)


def test_options():
    default = PruneOptions(threshold=0.3, max_keep_ratio=0.4, min_kept=3, anchors=("tl",))
    assert options_of(OWN_GLIMPSE, default) == default
    assert options_of(Method("glimpse", 0.2), default) == default.but(fixed_keep_ratio=0.2)
    assert options_of(Method("glimpse", 0.2), default).max_keep_ratio is None
    assert options_of(Method("oracle"), default) == PruneOptions()
    matched = options_of(Method("random", None, matched=True), default, [4, 0])
    assert matched == PruneOptions(num_keep=(4, 0), min_kept=0)


def test_the_reference_is_a_label_or_the_first_row_of_a_pruner():
    rows = [UNPRUNED, OWN_GLIMPSE, Method("glimpse", 0.5), Method("random", 0.5)]
    found = [find_reference(rows, name) for name in ("none", "glimpse", "glimpse-0.5", "random")]
    assert found == [UNPRUNED, OWN_GLIMPSE, rows[2], rows[3]]
    with pytest.raises(
        ValueError, match=r"eval\.reference: no row 'random-0\.4' to compare with, there are none-own, gl"
    ):
        find_reference(rows, "random-0.4")
