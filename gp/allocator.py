"""The C library's memory: freed pages stay for the next tensor, or go back to the system now and then."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
KEPT_BYTES = 2**30  # free memory at the heap's end above which it is given back
GROWTH_BYTES = 2**26
STATM = Path("/proc/self/statm")  # of Linux


def keep_freed_memory() -> bool:
    """Tells glibc to keep up to 1 GiB of freed memory, and to take large blocks from it.

    By default a block of some MiB comes from the system as empty pages and goes back when it is freed, so that every
    large tensor of every step pays for its pages again: about a sixth of the CPU time of a training step of the
    embedded model. It holds for the whole process, so only a command that owns its process calls it.

    Returns:
        Whether this C library took it; another one goes on as it did.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc: macOS, musl, Windows
        return False
    settings = ((M_TRIM_THRESHOLD, KEPT_BYTES), (M_TOP_PAD, GROWTH_BYTES), (M_MMAP_MAX, 0))
    return all([mallopt(name, value) == 1 for name, value in settings])


def give_back_freed_memory() -> bool:
    """Gives all free pages of the heaps back to the system; takes some milliseconds.

    Batches of ever other shapes leave holes of ever other sizes. A process that lives for days grows by them, although
    it holds no more than at first: glibc gives back what is free at a heap's end alone.

    Returns:
        Whether this C library took it; another one goes on as it did.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return False
    trim(0)
    return True


class MemoryBound:
    """Gives freed memory back when a process that lives for days has grown, not sooner: pages are slow to get again.

    Args:
        most: bytes that the process may grow by before freed memory is given back.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._after = resident_bytes()

    def look(self) -> bool:
        """Call it where nothing large is in use; returns whether freed memory has been given back."""
        now = resident_bytes()
        if self._after is None or now is None or now <= self._after + self.most:
            return False
        give_back_freed_memory()
        self._after = resident_bytes()
        return True


def resident_bytes() -> int | None:
    """Memory that this process holds; None where the system does not say (Linux does)."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
