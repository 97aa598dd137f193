"""A lock whose file goes away with it: folders that people copy and publish keep no trace of who wrote them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


@contextmanager
def passing_lock(path: Path, timeout_s: float = -1) -> Iterator[None]:
    """Holds the lock at `path`; the system takes it back when this process dies, however it dies.

    Args:
        path: of the lock's file, which is removed at the end.
        timeout_s: how long to wait for another holder; negative: for ever.

    Raises:
        Timeout: another process holds it for longer.
    """
    lock = FileLock(path)
    lock.acquire(timeout=timeout_s)
    while not _lies_at(lock, path):  # a holder before us removed the file that we waited for
        lock.release()
        lock = FileLock(path)
        lock.acquire(timeout=timeout_s)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for this file finds out by `_lies_at`
        lock.release()


def _lies_at(lock: FileLock, path: Path) -> bool:
    """Whether the file that is locked is the one that lies at `path` by now."""
    descriptor = lock._context.lock_file_fd  # no public name tells which file is locked
    assert descriptor is not None  # it is held
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
