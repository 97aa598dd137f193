"""Atomic writes: the old file or the new one, never half of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gp.runs.writing import naming, replacing, write_text


def test_a_new_file_and_a_replaced_one(tmp_path):
    for text in ("one", "zwei äöü"):
        write_text(tmp_path / "a.txt", text)
        assert (tmp_path / "a.txt").read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_on_the_way_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as unfinished:
        unfinished.write_text("ne")
        raise RuntimeError
    assert path.read_text() == "old" and [found.name for found in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_named(tmp_path):
    """The system's own error has no file in it."""
    (tmp_path / "full").symlink_to("/dev/full")
    path = tmp_path / "full"
    with pytest.raises(OSError, match="cannot be written") as caught, naming(path), path.open("a") as file:
        file.write("x" * 10_000)
    assert caught.value.filename == str(tmp_path / "full") and "No space left" in caught.value.strerror


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match="cannot be written") as caught:
        write_text(tmp_path / "none" / "a.txt", "x")
    assert caught.value.filename == str(tmp_path / "none" / "a.txt")
