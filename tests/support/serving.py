"""A server in a process of its own, as a user starts it, and what it holds in memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = re.compile(r"http://[^ ]+")


@contextmanager
def served(module: str, settings: Sequence[str], log: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """Starts `python -m MODULE SETTINGS`, yields its address and process, and ends it with SIGTERM.

    Raises:
        AssertionError: it ends before it serves, or leaves a process behind.
    """
    command = [sys.executable, "-m", module, *settings]
    with open(log, "w") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        line = process.stdout.readline()
        assert line, f"{module} did not start: {log.read_text()}"
        yield ADDRESS.search(line)[0], process
        mine = [process.pid, *children(process.pid)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 143
        assert not [pid for pid in mine if Path(f"/proc/{pid}").exists()]
    finally:
        if process.poll() is None:
            process.kill()
        process.stdout.close()


def children(pid: int) -> list[int]:
    """Processes that a process has started and that live."""
    tasks = Path(f"/proc/{pid}/task")
    found = [int(one) for task in tasks.iterdir() for one in (task / "children").read_text().split()]
    return [one for one in found if "multiprocessing.spawn" in Path(f"/proc/{one}/cmdline").read_text()]


def resident_mib(pid: int) -> float:
    """Memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
