"""A lock whose file goes away with it: folders that people copy and publish keep no trace of who wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


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
    while (newer := _newer(path)) is not None:
        lock.release()
        lock = newer
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for this file finds out by `_newer`
        lock.release()


def _newer(path: Path) -> FileLock | None:
    """The lock of the file that lies at `path` by now, if a holder before us removed ours; None: it is ours."""
    other = FileLock(path)
    try:
        other.acquire(timeout=0)
    except Timeout:
        return None
    return other
