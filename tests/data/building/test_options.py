"""Options: defaults, forms that a command line gives, and mistakes by name."""

from __future__ import annotations

import pytest

from gp.data.building import describe_options, load_build_config

NEEDED = ["name=gqa", "annotations=a.jsonl", "images=pieces"]


def test_defaults_and_single_paths():
    config = load_build_config(None, NEEDED)
    assert config.annotations == ["a.jsonl"] and config.images == ["pieces"]
    assert (config.seed, config.shard_samples, config.max_skipped_fraction) == (42, 1000, 0.02)


@pytest.mark.parametrize("path", ["2024", "a: b", "x #1/y", "{a,b}.tar", "1e3", "null", "~/x", "a=b", "*.tar"])
def test_names_of_files_are_taken_letter_by_letter(path):
    config = load_build_config(None, ["name=gqa", f"annotations={path}", f"images={path}", f"out={path}"])
    assert (config.annotations, config.images, config.out) == ([path], [path], path)
    assert load_build_config(None, [*NEEDED[:2], "images=[a.tar, b.tar]"]).images == ["a.tar", "b.tar"]


@pytest.mark.parametrize(
    "given",
    [
        ["splits={train:0.98,val:0.02}"],
        ["splits={train: 0.98, val: 0.02}"],
        ["splits.train=0.98", "splits.val=0.02"],
    ],
)
def test_every_way_to_write_splits(given):
    assert load_build_config(None, [*NEEDED, *given]).splits == {"train": 0.98, "val": 0.02}


def test_the_command_line_wins_over_the_file(tmp_path):
    path = tmp_path / "build.yaml"
    path.write_text("name: a\nannotations: [x.jsonl, y.jsonl]\nimages: i\nseed: 1\nsplits: {train: 100, val: 10}\n")
    config = load_build_config(path, ["seed=2"])
    assert config.annotations == ["x.jsonl", "y.jsonl"] and config.seed == 2 and config.splits_are_counts


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("shard_sample=10", r"unknown key 'shard_sample'; the nearest known one is 'shard_samples'"),
        ("seed=many", "command line: seed must be a whole number, got 'many'"),
        ("name=a/b", r"letters, digits, - and _, got 'a/b'"),
        ("splits={tra.in:0.5}", r"got 'tra\.in'"),
        ("sample=first:3", r"random:N, got 'first:3'"),
        ("check=none", "check must be one of decode, header, got 'none'"),
        ("shard_samples=0", "shard_samples must be a whole number, 1 or more"),
        ("shard_mib=-1", "shard_mib must be null or a number, more than 0"),
        ("workers=-1", "workers must be null or a whole number, 0 or more"),
        ("max_skipped_fraction=2", r"max_skipped_fraction must be a number in \[0, 1\]"),
        ("splits={a:0.9,b:0.2}", "sum to 1 or less"),
        ("splits={a:100,b:0.2}", "fractions only, or numbers only"),
        ("splits={a:0}", "splits.a must be a number, more than 0"),
        ("images=[]", "images must be a list of 1 or more"),
    ],
)
def test_mistakes_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        load_build_config(None, [*NEEDED, given])


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="no value for annotations, images"):
        load_build_config(None, ["name=a"])


def test_every_option_is_described():
    assert "max_skipped_fraction" in describe_options() and "(required)" in describe_options()
