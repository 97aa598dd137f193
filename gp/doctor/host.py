"""This code, the Python that runs it, and the machine below; no library is imported."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import gp
from gp.doctor.report import Line, tidy
from gp.measure.machine import code_commit, memory_gib, processor_name, usable_cores


def check() -> Iterator[Line]:
    """Yields versions of gp and Python, the commit, and what the machine is."""
    yield Line("gp", f"{gp.__version__} in {tidy(Path(gp.__file__).parent)}")
    yield Line("commit", _commit())
    yield Line("python", f"{platform.python_version()} ({platform.python_implementation()}) in {tidy(sys.prefix)}")
    yield Line("system", platform.platform())
    yield Line("processor", f"{processor_name()}, {usable_cores()} of {os.cpu_count()} cores")
    yield Line("memory", _memory())


def _commit() -> str:
    version = code_commit()
    if version["commit"] is None:
        return "unknown: not a git repository"
    return version["commit"] + (", files changed since" if version["dirty"] else "")


def _memory() -> str:
    total, available = memory_gib()
    free = f", {available:.1f} GiB available" if available is not None else ""
    return "unknown" if total is None else f"{total:.1f} GiB{free}"
