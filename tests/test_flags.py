"""`key=value` where options are flags: the same parsed options, in every command that has flags."""

from __future__ import annotations

import argparse

import pytest

from gp.bench.__main__ import make_parser
from gp.flags import KeyValueHelp, as_flags


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(formatter_class=KeyValueHelp)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--keep-ratio", "--keep", type=float)
    parser.add_argument("--fast", action="store_true")
    return parser


@pytest.mark.parametrize(
    "words",
    [
        ["a", "b", "--keep-ratio", "0.5", "--fast"],
        ["a", "b", "keep_ratio=0.5", "fast=true"],
        ["keep_ratio=0.5", "a", "fast=1", "b"],
        ["target=b", "source=a", "--keep", "0.5", "fast=true"],
    ],
)
def test_keys_are_flags_and_places(parser, words):
    options = parser.parse_args(as_flags(parser, words))
    assert vars(options) == {"source": "a", "target": "b", "keep_ratio": 0.5, "fast": True}


def test_a_switch_may_be_false_and_a_value_may_hold_anything(parser):
    options = parser.parse_args(as_flags(parser, ["source=x=y z", "target=t=1", "fast=false"]))
    assert (options.source, options.fast) == ("x=y z", False)
    assert options.target == "t=1"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["a", "b", "keep=0.5"],
            "unknown key 'keep', known are source, target, keep_ratio, fast; the nearest",
        ),
        (["a", "b", "fast=maybe"], "fast must be true or false, got 'maybe'"),
        (["target=b", "a"], "expected source= and target= together, got only target="),
    ],
)
def test_a_mistake_is_named(parser, words, line, capsys):
    with pytest.raises(SystemExit) as stop:
        as_flags(parser, words)
    assert stop.value.code == 2 and line in capsys.readouterr().err


def test_a_folder_whose_name_has_an_equals_sign(parser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed=0").mkdir()
    assert as_flags(parser, ["seed=0", "b"]) == ["seed=0", "b"]


def test_help_lists_options_in_the_idiom(parser):
    text = parser.format_help()
    assert "keep_ratio=KEEP_RATIO, --keep-ratio" in text and "fast=true, --fast" in text


def test_every_bench_takes_it():
    parser = make_parser()
    given = as_flags(parser, ["prefill", "preset=tiny", "repeats=2", "json=x.json"])
    assert given == ["prefill", "--preset=tiny", "--repeats=2", "--json=x.json"]
    assert vars(parser.parse_args(given))["preset"] == "tiny"
    for name in ("train", "decode", "data", "build", "memory"):
        assert as_flags(parser, [name, "--help"]) == [name, "--help"]
