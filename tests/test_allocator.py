"""Freed memory stays with the process that asks for it, and only there."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

MEASURE = """
import resource, sys
import numpy as np
from gp.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def touch():
    np.ones(2**22)  # 32 MiB: above glibc's largest threshold of its own
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_the_same_pages_serve_the_next_array():
    faults = {way: _faults(way) for way in ("kept", "given back")}
    assert faults["given back"] > 8  # pages may be huge ones
    assert faults["kept"] < faults["given back"] / 4


def _faults(way: str) -> int:
    done = subprocess.run([sys.executable, "-c", MEASURE, way], capture_output=True, text=True, check=True)
    return int(done.stdout)


HOLES = """
import os
from pathlib import Path
import numpy as np
from gp.allocator import give_back_freed_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
blocks = [np.ones(2**13) for _ in range(2048)]  # 64 KiB each: from the heap, not pages of their own
del blocks[:-1]  # the last one holds the heap's end
before = resident()
assert give_back_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the trim is glibc's")
def test_holes_in_the_heap_go_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 100  # of 128 MiB that were freed
