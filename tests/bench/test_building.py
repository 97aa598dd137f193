"""The bench of building measures what it says; its figures are not asserted."""

from __future__ import annotations

from gp.bench.building import _spread
from gp.data.building.sources import open_source
from tests.support.bench_commands import run_bench


def test_a_whole_run(tmp_path):
    given = ["--mib", "1", "--rounds", "2", "--width", "64", "--keep", "0.5,1", "--check", "header", "--workers", "1"]
    figures, markdown = run_bench(tmp_path, "build", *given, "--folder", str(tmp_path))
    half, all_of_it = figures["results"]
    assert half["keep"] == 0.5 and half["tar_mib_s"] > 0 and half["build_mib_s"] > 0 and "copy_mib_s" not in half
    assert all_of_it["copy_mib_s"] > 0 and all_of_it["build_to_copy"]["median"] > 0
    assert markdown.count("| 50% | header |") == markdown.count("| 100% | header |") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.md"]


def test_memory(tmp_path):
    figures, _ = run_bench(tmp_path, "build", "--memory", "300", "--workers", "1", "--folder", str(tmp_path))
    assert figures["samples"] == 300 and list(figures["peak_mib"]) == ["0%", "10%", "50%", "100%"]
    assert all(len(peaks) == 2 and min(peaks) > 0 for peaks in figures["peak_mib"].values())


def test_wanted_images_are_spread_evenly():
    assert list(_spread(10, 0.3)) == [3, 6, 9] and len(list(_spread(1000, 0.05))) == 50
    assert list(_spread(4, 1.0)) == [0, 1, 2, 3]


def test_copying_is_copying(tmp_path):
    from gp.bench.building import copy_with_tar, drawn_images, write_archive

    images = drawn_images(64)
    copy_with_tar(write_archive(tmp_path / "p", images, 70, 3), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"".join([*images, *images[:6]])


def test_the_synthetic_archive_is_a_split_tar(tmp_path):
    from gp.bench.building import drawn_images, write_archive

    pieces = write_archive(tmp_path / "p", drawn_images(64), 100, 7)
    source = open_source([str(tmp_path / "p")])
    keys = [f"synthetic/{number:08d}.jpg" for number in range(100)]
    assert len(pieces) == 7 and [found.key for found in source.walk(set(keys))] == keys
