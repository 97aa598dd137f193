"""Devices that torch can use."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gp.doctor.report import NOTE, WARNING, Line, attempt

if TYPE_CHECKING:
    import torch

GIB = 2**30


def check() -> Iterator[Line]:
    """Yields the CPU, each CUDA device, and MPS where it is."""
    import torch

    yield Line("cpu", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    yield _cuda_line(count, driver_of_nvidia())
    for index in range(count):
        yield attempt(f"cuda:{index}", describe_cuda, index)
    if torch.backends.mps.is_available():
        yield Line("mps", f"{torch.mps.recommended_max_memory() / GIB:.1f} GiB recommended at most")


def best_device() -> torch.device:
    """The device that the kernels are tried on: the first of cuda, mps, cpu."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def describe_cuda(index: int) -> Line:
    """Name, compute capability and memory of a CUDA device."""
    import torch

    free, total = torch.cuda.mem_get_info(index)
    major, minor = torch.cuda.get_device_capability(index)
    memory = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    return Line(f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, compute capability {major}.{minor}, {memory}")


def driver_of_nvidia() -> str | None:
    """The driver's version as nvidia-smi says it; None without an answer."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split()[0] if done.returncode == 0 and done.stdout.strip() else None


def _cuda_line(count: int, driver: str | None) -> Line:
    """Yields what torch was built for and what it finds; a GPU that torch does not see is worth a warning."""
    import torch

    built = f"torch built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch built without CUDA"
    if torch.version.hip:
        built = f"torch built for ROCm {torch.version.hip}"
    seen = f"{count} device{'s' if count != 1 else ''}; {built}; driver {driver or 'unknown'}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = "" if visible is None else f"; CUDA_VISIBLE_DEVICES={visible!r}"
    return Line("cuda", seen + chosen, WARNING if driver and not count and visible is None else NOTE)
