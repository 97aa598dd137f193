"""Atomic writes: the old file or the new one, never half of one."""

from __future__ import annotations

import pytest

from gp.runs.writing import replacing, write_text


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
