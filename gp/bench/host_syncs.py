"""Finds the calls that make the host wait for the device, by line of code.

Works on a CPU, too, where nothing waits: it looks at what is called. On a GPU each of these calls empties the queue
of kernels. Tensors that are said to be on the host, and what is computed from nothing else, can be read for free until
gp moves them with `to` (transformers moves tensors only to where its other arguments are). Not seen: what a kernel
library does inside.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

READS = {
    Tensor.cpu: "cpu",
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
MOVES = (Tensor.to, Tensor.cuda)
SKIPPED = ("torch", "gp/bench")  # frames of these are not the caller
PLACE = "_gp_bench_place"  # attribute of tensors: HOST, or FREE: made from no tensor, wherever it is wanted
HOST, FREE, DEVICE = "host", "free", "device"


class HostSyncs(TorchFunctionMode):
    """Counts, while it is entered: `calls["gp/engine/prefill.py:176 int"]`.

    Args:
        host: tensors that are on the host.
    """

    def __init__(self, host: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        for tensor in host:
            setattr(tensor, PLACE, HOST)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        places = {getattr(tensor, PLACE, DEVICE) for tensor in given}
        place = next((name for name in (DEVICE, HOST) if name in places), FREE)
        kind = _kind(func, args, kwargs) if place == DEVICE else None
        if kind:
            self.calls[f"{_caller()} {kind}"] += 1
        out = func(*args, **kwargs)
        if func in MOVES and place != DEVICE and _names_device(args[1:], kwargs) and _caller().startswith("gp/"):
            return out.view_as(out)  # on a CPU it would be the same tensor, and stay on the host
        if func is Tensor.__iter__:
            out = list(out)
        if place != DEVICE:
            _put(out, given, place)
        return iter(out) if func is Tensor.__iter__ else out

    def in_package(self, package: str) -> int:
        """Calls from files of a package."""
        return sum(count for place, count in self.calls.items() if place.startswith(package + "/"))


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list, dict)):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors(value)


def _put(out: Any, given: list[Tensor], place: str) -> None:
    for tensor in _tensors(out):
        if all(tensor is not one for one in given):
            setattr(tensor, PLACE, place)


def _names_device(args: tuple, kwargs: dict) -> bool:
    return any(isinstance(value, (torch.device, str)) for value in (*args, *kwargs.values()))


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
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        for package in ("gp", "transformers"):
            if package in path.parts:
                inside = "/".join(path.parts[len(path.parts) - 1 - path.parts[::-1].index(package) :])
                if not inside.startswith(SKIPPED):
                    return f"{inside}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
