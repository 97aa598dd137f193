"""What a command line sweeps over, and what stays a value."""

from __future__ import annotations

import pytest

from gp.runs.sweep import members_of


def test_every_combination_in_order():
    members = members_of(["optim.lr=1e-4,5e-4", "name=x", "seed=0, 1,2"])
    assert [member.label for member in members] == [
        f"optim.lr={rate}+seed={seed}" for rate in ("1e-4", "5e-4") for seed in (0, 1, 2)
    ]
    assert members[1].overrides == ["name=x", "optim.lr=1e-4", "seed=1"]
    assert members[1].name("x") == "x-optim.lr=1e-4+seed=1"


@pytest.mark.parametrize(
    "text",
    [
        "data.val=[a.tar,b.tar]", "glimpse.read_layers=[0,1]", "vip.taps=3,2", "eval.budgets=[0.1,null]",
        "trainer.devices=0,1", "trainer.logger=[tensorboard,csv]", "name=a,b", "ckpt=a,b", 'model.base="a,b"', "seed=1",
    ],
)  # fmt: skip
def test_lists_quoted_texts_and_names_are_no_sweep(text):
    (member,) = members_of([text])
    assert (member.label, member.overrides) == ("", [text])


def test_names_of_folders_hold_neither_slashes_nor_commas():
    first, _ = members_of(["model.base=Qwen/A,Qwen/B"])
    assert first.name("x") == "x-model.base=Qwen_A"


def test_the_last_value_of_a_key_counts():
    assert [member.overrides for member in members_of(["seed=5", "seed=0,1"])] == [["seed=0"], ["seed=1"]]


@pytest.mark.parametrize(("text", "message"), [("seed=0,,1", "an empty value"), ("seed=0,1,0", "0 is given twice")])
def test_mistakes(text, message):
    with pytest.raises(ValueError, match=message):
        members_of([text])
