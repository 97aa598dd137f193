"""Freed memory stays with the process that asks for it, and only there."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from gp import allocator

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


def test_memory_is_given_back_when_the_process_has_grown_and_not_before(monkeypatch):
    held, given_back = [100, 150, 151, 90, 140, 141, 120], []
    monkeypatch.setattr(allocator, "resident_bytes", lambda: held.pop(0))
    monkeypatch.setattr(allocator, "give_back_freed_memory", lambda: given_back.append(held[0]))
    bound = allocator.MemoryBound(50)  # of 100
    assert [bound.look() for _ in range(3)] == [False, True, False]
    assert given_back == [90]  # from 151 to 90: from now on 140 is the bound
    assert bound.look() and given_back == [90, 120]


def test_a_system_that_does_not_say_what_it_holds_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(allocator, "STATM", tmp_path / "none")
    monkeypatch.setattr(allocator, "give_back_freed_memory", pytest.fail)
    assert allocator.resident_bytes() is None and not allocator.MemoryBound(0).look()
