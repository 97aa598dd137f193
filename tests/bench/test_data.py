"""The bench of the data loader measures what it says; its figures are not asserted."""

from __future__ import annotations

import json

import pytest

from gp.bench import data
from gp.bench.__main__ import main

SMALL = ["--width", "56", "--height", "56", "--batch", "2", "--batches", "1", "--rounds", "2"]


@pytest.mark.parametrize("extra", [["--workers", "0"], ["--workers", "1", "--deliver"]])
def test_speed(extra, tmp_path, capsys):
    assert main(["data", *SMALL, *extra, "--json", str(tmp_path / "out.json")]) == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["ratio"] > 0 and set(figures["samples_per_s_and_worker"]) == {"loader", "bound"}
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == figures


def test_memory(tmp_path, capsys):
    options = ["--memory", "--samples", "40", "--batch", "4", "--workers", "1"]
    assert main(["data", *options, "--json", str(tmp_path / "out.json")]) == 0
    marks = json.loads((tmp_path / "out.json").read_text())["marks"]
    assert [mark["samples"] for mark in marks] == list(range(4, 41, 4))
    assert all(mark["rss_mib"] > 0 and len(mark["workers_rss_mib"]) == 1 for mark in marks)


def test_padding_of_mixed_sizes_falls_with_bucketing(tmp_path):
    padding = []
    for pool in ("1", "8"):
        sizes = [
            "--width",
            "224",
            "--height",
            "224",
            "--batch",
            "4",
            "--batches",
            "4",
            "--rounds",
            "2",
            "--workers",
            "0",
        ]
        main(["data", *sizes, "--mixed", "--bucket-batches", pool, "--json", str(tmp_path / "out.json")])
        padding.append(json.loads((tmp_path / "out.json").read_text())["padding"])
    assert 0 < padding[1] < 0.5 * padding[0]


def test_both_loaders_see_the_same_images(tmp_path):
    images = data.photos(56, 28)
    data.write_shards(tmp_path, 5, images[:2], samples_a_shard=3)
    bound = data.Bound(sorted(map(str, tmp_path.glob("*.tar"))), None, 2)
    assert bound.images == [images[number % 2] for number in range(5)]


def test_mistakes(capsys):
    assert main(["data", "--batch", "0"]) == 2
    assert "--batch must be at least 1" in capsys.readouterr().err
