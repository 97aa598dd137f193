"""One holder at a time, and no file left."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import time

import pytest
from filelock import FileLock, Timeout

from gp.runs.passing_lock import _lies_at, passing_lock

pytestmark = pytest.mark.core


def _add_one(folder, times):
    for _ in range(times):
        with passing_lock(folder / "x.lock"):
            number = int((folder / "count").read_text())
            time.sleep(0.0005)
            (folder / "count").write_text(str(number + 1))


def test_nothing_is_left_and_nobody_meets(tmp_path):
    """Every count is one that nobody else was at, although each holder removes the file that others wait for."""
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_one, args=(tmp_path, 40)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "count").read_text() == "160"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_another_holder_is_waited_for_and_then_given_up(tmp_path):
    with passing_lock(tmp_path / "x.lock"), pytest.raises(Timeout), passing_lock(tmp_path / "x.lock", 0.1):
        pass
    assert not list(tmp_path.iterdir())


def _die(path):
    with passing_lock(path):
        os._exit(1)


def test_a_dead_holders_lock_is_free(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_die, args=(tmp_path / "x.lock",))
    process.start()
    process.join()
    assert (tmp_path / "x.lock").exists()
    with passing_lock(tmp_path / "x.lock", 1):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_on_a_removed_file_is_no_lock(tmp_path):
    """Also where a third one holds the new file at its place, so that it looks taken."""
    path = tmp_path / "x.lock"
    with FileLock(path) as waited:
        assert _lies_at(waited, path)
        path.unlink()
        assert not _lies_at(waited, path)
        with path.open("w") as third:
            fcntl.flock(third, fcntl.LOCK_EX)
            assert not _lies_at(waited, path)
