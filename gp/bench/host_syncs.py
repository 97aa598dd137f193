"""Finds the calls that make the host wait for the device, by line of code.

Works on a CPU, too, where nothing waits: it looks at what is called. On a GPU each of these calls empties the queue
of kernels. Not seen: what a kernel library does inside.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

READS = {
    Tensor.item: "item",
    Tensor.tolist: "tolist",
    Tensor.__bool__: "bool",
    Tensor.__int__: "int",
    Tensor.__float__: "float",
    Tensor.__index__: "index",
    Tensor.nonzero: "nonzero",
    torch.nonzero: "nonzero",
    Tensor.masked_select: "masked_select",
    Tensor.unique_consecutive: "unique_consecutive",
    torch.unique_consecutive: "unique_consecutive",
    Tensor.unique: "unique",
}
INDEXING = {Tensor.__getitem__: "boolean index", Tensor.__setitem__: "boolean index"}
REPEATS = (torch.repeat_interleave, Tensor.repeat_interleave)
SKIPPED = ("torch", "gp/bench")  # frames of these are not the caller


class HostSyncs(TorchFunctionMode):
    """Counts, while it is entered: `calls["gp/prefill.py:176 int"]`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kind = _kind(func, args, kwargs or {})
        if kind:
            self.calls[f"{_caller()} {kind}"] += 1
        return func(*args, **(kwargs or {}))

    def in_package(self, package: str) -> int:
        """Calls from files of a package."""
        return sum(count for place, count in self.calls.items() if place.startswith(package + "/"))


def _kind(func: Any, args: tuple, kwargs: dict) -> str | None:
    if func in READS:
        return READS[func]
    if func in INDEXING and _has_boolean(args[1]):
        return INDEXING[func]
    if func in REPEATS and len(args) > 1 and isinstance(args[1], Tensor) and "output_size" not in kwargs:
        return "repeat_interleave"
    return None


def _has_boolean(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)


def _caller() -> str:
    """Package-relative file and line of the code that called torch."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        for package in ("gp", "transformers"):
            if package in path.parts:
                inside = "/".join(path.parts[len(path.parts) - 1 - path.parts[::-1].index(package) :])
                if not inside.startswith(SKIPPED):
                    return f"{inside}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
