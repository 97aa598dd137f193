"""Memory in use and its peaks, of a device and of processes."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

import torch

MIB = 2**20
PROC = Path("/proc")  # of Linux; nothing is there on other systems
RESET_HIGH_WATER_MARK = "5"
SELF = "self"


class PeakMemory:
    """The peak of memory use since it was made, above the use at that moment.

    On a GPU what torch allocated; on a CPU the resident set's high-water mark, which Linux can reset.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._can_tell = self._device.type == "cuda"
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif self._device.type == "cpu":
            _give_back_freed()
            self._can_tell = _can_forget_peak()
        self._before = self._read()

    def above_mib(self) -> float | None:
        """MiB; None where the system cannot tell."""
        return self._read() - self._before if self._can_tell else None

    def held_mib(self) -> float | None:
        """Memory in use now above that at the start, MiB; None where the system cannot tell."""
        if not self._can_tell:
            return None
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device) / MIB - self._before
        _give_back_freed()
        return resident_mib() - self._before

    def _read(self) -> float:
        if not self._can_tell:
            return 0.0
        return (
            torch.cuda.max_memory_allocated(self._device) / MIB if self._device.type == "cuda" else resident_peak_mib()
        )


def lifetime_peak_mib(device: torch.device) -> float:
    """Peak memory of this process so far, MiB: allocated by torch on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB here
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def resident_mib(pid: int | str = SELF) -> float:
    """Resident memory of a process, MiB (Linux)."""
    return _status_mib("VmRSS", pid)


def resident_peak_mib(pid: int | str = SELF) -> float:
    """High-water mark of the resident memory of a process since `forget_peak`, or since its start, MiB (Linux)."""
    return _status_mib("VmHWM", pid)


def forget_peak(pid: int | str = SELF) -> None:
    """Makes the present resident memory of a process its high-water mark (Linux).

    Raises:
        OSError: the kernel does not offer that.
    """
    (PROC / str(pid) / "clear_refs").write_text(RESET_HIGH_WATER_MARK)


def family() -> list[str]:
    """This process, then its children, as `pid` of the functions above (Linux)."""
    return [SELF, *(PROC / SELF / "task" / str(os.getpid()) / "children").read_text().split()]


def _can_forget_peak() -> bool:
    try:
        forget_peak()
    except OSError:
        return False
    return True


def _give_back_freed() -> None:
    """Lets the C library return freed pages: as part of the resident set they would hide what is allocated next."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if PROC.is_dir() else None  # glibc has it
    if trim is not None:
        trim(0)


def _status_mib(name: str, pid: int | str) -> float:
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) / 2**10
