"""Memory of a prompt: the peak while it is prefilled and answered, and its KV cache."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from transformers import DynamicCache

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_HIGH_WATER_MARK = "5"


class PeakMemory:
    """The peak of memory use since it was made, above the use at that moment.

    On a GPU what torch allocated; on a CPU the resident set's high-water mark, which Linux can reset.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._can_tell = device.type == "cuda"
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu":
            _give_back_freed()
            self._can_tell = _reset_mark()
        self._before = self._read()

    def above_mib(self) -> float | None:
        """MiB; None where the system cannot tell."""
        return self._read() - self._before if self._can_tell else None

    def held_mib(self) -> float | None:
        """What is in use now above the use at the start, MiB; None where the system cannot tell."""
        if not self._can_tell:
            return None
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device) / 2**20 - self._before
        _give_back_freed()
        return _status_mib("VmRSS") - self._before

    def _read(self) -> float:
        if not self._can_tell:
            return 0.0
        return (
            torch.cuda.max_memory_allocated(self._device) / 2**20
            if self._device.type == "cuda"
            else _status_mib("VmHWM")
        )


def kv_cache_mib(cache: DynamicCache) -> float:
    """Size of all keys and values, padding included."""
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 2**20


def _give_back_freed() -> None:
    """Lets the C library return freed pages: as part of the resident set they would hide what is allocated next."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if STATUS.exists() else None  # glibc has it
    if trim is not None:
        trim(0)


def _reset_mark() -> bool:
    """Makes the present resident set the high-water mark; False where the kernel does not offer that."""
    try:
        CLEAR.write_text(RESET_HIGH_WATER_MARK)
    except OSError:
        return False
    return True


def _status_mib(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 2**10
