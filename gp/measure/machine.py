"""The machine, the libraries and the code that figures were taken with.

Importing this file imports no library, so that it also works where one of them is broken.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

GIB = 2**30
LIBRARIES = ("torch", "transformers", "lightning")


def device_name(device: torch.device | str = "cpu") -> str:
    """The GPU's name, or for example "2 CPU cores (AMD EPYC)"."""
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"{usable_cores()} CPU cores ({processor_name()})"


def processor_name() -> str:
    """The CPU's model, or its architecture where the system does not tell."""
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> tuple[float | None, float | None]:
    """The machine's memory and what of it is available, GiB; None where the system does not tell."""
    has_size = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB if has_size else None
    available = [int(line.split()[1]) / 2**20 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable")]
    return total, available[0] if available else None


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results may depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def code_commit() -> dict[str, Any]:
    """`commit` of this code (None outside its git repository), and `dirty`: whether files were changed since."""
    package = Path(__file__).resolve().parents[1]
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None
    commit = _git(package, "rev-parse", "HEAD") if tracked else None
    changed = bool(_git(package, "status", "--porcelain", "--untracked-files=no")) if commit else None
    return {"commit": commit, "dirty": changed}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command; None if it fails or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _lines(path: str) -> list[str]:
    """Lines of a file of the Linux kernel; none on other systems."""
    return Path(path).read_text().splitlines() if Path(path).is_file() else []
