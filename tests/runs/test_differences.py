"""Differences of nested settings, and the refusal of another base."""

from __future__ import annotations

import pytest

from gp.runs.differences import Difference, differences, refuse_other_base

HERE = {"model_type": "qwen2_5_vl", "hidden_size": 64}


def test_nested_differences_have_dotted_keys_and_lists_are_values():
    there = {"optim": {"lr": 1.0, "betas": [0.9, 0.99]}, "gone": 1, "same": {"x": 0}}
    here = {"same": {"x": 0}, "optim": {"lr": 2.0, "betas": [0.9, 0.999]}, "new": {"y": 2}}
    assert differences(there, here) == [
        Difference("optim.lr", 1.0, 2.0),
        Difference("optim.betas", [0.9, 0.99], [0.9, 0.999]),
        Difference("new", None, {"y": 2}),
        Difference("gone", 1, None),
    ]


def test_the_same_base_passes_whatever_else_is_noted():
    refuse_other_base({"name": "a", "revision": None, **HERE}, HERE, "ckpt")


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ({"name": "big", "model_type": "qwen2_5_vl", "hidden_size": 2048}, ("big", "hidden_size", "2048", "64")),
        ({"name": "old", "model_type": "qwen2_5_vl"}, ("old", "hidden_size", "None", "64")),
        (None, ("which base",)),
    ],
)
def test_another_base_is_refused(there, named):
    with pytest.raises(ValueError) as error:
        refuse_other_base(there, HERE, "ckpt x")
    assert all(word in str(error.value) for word in ("ckpt x", *named))
