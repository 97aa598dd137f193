"""Memory is above what was there before, of this process and of others."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gp.measure import peak_memory
from gp.measure.peak_memory import (
    PeakMemory,
    family,
    forget_peak,
    lifetime_peak_mib,
    resident_mib,
    resident_peak_mib,
)

CHILD = """
held = bytearray(64 * 2**20)
held[::4096] = b"1" * (len(held) // 4096)
del held
print("ready", flush=True)
input()
"""
on_linux = pytest.mark.skipif(PeakMemory("cpu").above_mib() is None, reason="this system has no marks to reset")


@on_linux
def test_peak_memory_is_above_what_was_there_and_outlives_what_was_freed():
    held = torch.ones(2**23)  # 32 MiB, not counted
    peak = PeakMemory("cpu")
    assert peak.above_mib() < 8
    for _ in range(2):
        torch.ones(2**24).sum()  # 64 MiB, freed at once
    assert peak.above_mib() == pytest.approx(64, abs=8)
    assert PeakMemory("cpu").above_mib() < 8 and held.sum() == 2**23


def test_peak_memory_is_unknown_where_the_system_cannot_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(peak_memory, "PROC", tmp_path)
    assert PeakMemory("cpu").above_mib() is None
    assert PeakMemory("meta").above_mib() is None


@on_linux
def test_a_childs_peak_is_seen_and_can_be_forgotten():
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        assert str(child.pid) in family()[1:]
        held, peak = resident_mib(child.pid), resident_peak_mib(child.pid)
        assert peak - held == pytest.approx(64, abs=8)
        forget_peak(child.pid)
        assert resident_peak_mib(child.pid) == pytest.approx(held, abs=2)
        child.communicate(b"\n")


def test_the_peak_of_a_lifetime_only_grows():
    before = lifetime_peak_mib(torch.device("cpu"))
    held = torch.ones(64 * 2**18)  # 64 MiB
    assert 1 < before <= lifetime_peak_mib(torch.device("cpu")) < 1e6 and held[0] == 1
