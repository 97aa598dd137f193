"""The bench of the data loader measures what it says; its figures are not asserted."""

from __future__ import annotations

import pytest

from gp.bench import data
from tests.support.bench_commands import assert_spread, run_bench

SMALL = ["--width", "56", "--height", "56", "--batch", "2", "--batches", "1", "--rounds", "2"]


@pytest.mark.parametrize("extra", [["--workers", "0"], ["--workers", "1", "--deliver"]])
def test_speed(extra, tmp_path):
    figures, markdown = run_bench(tmp_path, "data", *SMALL, *extra)
    assert set(figures["samples_per_s_and_worker"]) == {"loader", "bound"}
    for spread in (figures["ratio"], *figures["samples_per_s_and_worker"].values()):
        assert_spread(spread)
    assert figures["width"] == 56 and figures["where"]["threads"] >= 1
    assert "| training loader |" in markdown and figures["command"] in markdown


def test_memory(tmp_path):
    options = ["--memory", "--samples", "40", "--batch", "4", "--workers", "1"]
    figures, _ = run_bench(tmp_path, "data", *options)
    marks = figures["marks"]
    assert [mark["samples"] for mark in marks] == list(range(4, 41, 4))
    assert all(mark["rss_mib"] > 0 and len(mark["workers_rss_mib"]) == 1 for mark in marks)


def test_padding_of_mixed_sizes_falls_with_bucketing(tmp_path):
    sizes = "--mixed --width 224 --height 224 --batch 4 --batches 4 --repeats 2 --workers 0"
    padding = []
    for pool in ("1", "8"):
        figures, _ = run_bench(tmp_path, "data", *sizes.split(" "), "--bucket-batches", pool)
        padding.append(figures["padding"])
    assert 0 < padding[1] < 0.5 * padding[0]


def test_both_loaders_see_the_same_images(tmp_path):
    images = data.photos(56, 28)
    data.write_shards(tmp_path, 5, images[:2], samples_a_shard=3)
    bound = data.Bound(sorted(map(str, tmp_path.glob("*.tar"))), None, 2)
    assert bound.images == [images[number % 2] for number in range(5)]
