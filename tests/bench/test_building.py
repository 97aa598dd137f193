"""The bench of building measures what it says; its figures are not asserted."""

from __future__ import annotations

import json

from gp.bench.__main__ import main
from gp.bench.building import _spread
from gp.data.building.sources import open_source


def test_a_whole_run(tmp_path, capsys):
    given = ["--mib", "1", "--rounds", "2", "--width", "64", "--keep", "0.5,1", "--check", "header", "--workers", "1"]
    assert main(["build", *given, "--folder", str(tmp_path), "--json", str(tmp_path / "out.json")]) == 0
    half, all_of_it = results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert half["keep"] == 0.5 and half["tar_mib_s"] > 0 and half["build_mib_s"] > 0 and "copy_mib_s" not in half
    assert all_of_it["copy_mib_s"] > 0 and all_of_it["build_to_copy"]["median"] > 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["results"] == results
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_memory(tmp_path, capsys):
    assert main(["build", "--memory", "300", "--workers", "1", "--folder", str(tmp_path)]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["samples"] == 300 and len(figures["peak_mib"]["100%"]) == 2


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
