"""One writer per run folder: a lock that the system takes back when its process dies, however it dies."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gp.runs.writing import write_text

LOCK, HOLDER = ".writer.lock", ".writer.json"
REMEDY = "wait for it, stop it, or choose another folder with name=..."
PATIENCE_S = 10.0  # for the children of a killed writer: they share its lock and end soon after it


@contextmanager
def one_writer(folder: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Holds a run folder for this process; it may be entered again within.

    A folder that is still empty at the end is removed.

    Args:
        folder: made if it is not there.
        remedy: what to do where another process has it.

    Raises:
        ValueError: another process has it; names the process, its machine and since when.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, is_singleton=True)
    _acquire(lock, folder, remedy)
    is_outermost = lock.lock_counter == 1
    try:
        if is_outermost:
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
            write_text(folder / HOLDER, json.dumps(holder) + "\n")
        yield
    finally:
        if is_outermost:
            (folder / HOLDER).unlink(missing_ok=True)
            if made and [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                with contextlib.suppress(OSError):  # another run has come into a folder above
                    for path in made:
                        path.rmdir()
        lock.release()


def _acquire(lock: FileLock, folder: Path, remedy: str) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = _holder(folder)
        try:
            lock.acquire(timeout=PATIENCE_S if _is_dead(holder) else 0)
        except Timeout:
            raise ValueError(
                f"{folder} is being written to by process {holder.get('pid', '(unknown)')} on "
                f"{holder.get('host', '(unknown)')} since {holder.get('since', '(unknown)')}: {remedy}"
            ) from None


def _holder(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / HOLDER).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
