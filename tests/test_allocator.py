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
