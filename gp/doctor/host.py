"""This code, the Python that runs it, and the machine below; no library is imported."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import gp
from gp.doctor.report import Line, tidy
from gp.measure.commit import code_commit

GIB = 2**30


def check() -> Iterator[Line]:
    """Yields versions of gp and Python, the commit, and what the machine is."""
    yield Line("gp", f"{gp.__version__} in {tidy(Path(gp.__file__).parent)}")
    yield Line("commit", _commit())
    yield Line("python", f"{platform.python_version()} ({platform.python_implementation()}) in {tidy(sys.prefix)}")
    yield Line("system", platform.platform())
    yield Line("processor", f"{_processor()}, {_usable_cores()} of {os.cpu_count()} cores")
    yield Line("memory", _memory())


def _commit() -> str:
    version = code_commit()
    if version["commit"] is None:
        return "unknown: not a git repository"
    return version["commit"] + (", files changed since" if version["dirty"] else "")


def _processor() -> str:
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "unknown"
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable")]
    free = f", {available[0] / GIB:.1f} GiB available" if available else ""
    return f"{total / GIB:.1f} GiB{free}"


def _lines(path: str) -> list[str]:
    """Lines of a file of the Linux kernel; none on other systems."""
    return Path(path).read_text().splitlines() if Path(path).is_file() else []
