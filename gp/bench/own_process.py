"""Peak memory of a run, in a process that has done nothing else."""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

from gp.measure.peak_memory import PeakMemory

# glibc keeps freed blocks for reuse, which would count as resident; with these every larger block is given back
PLAIN_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def add_way_argument(parser: argparse.ArgumentParser, ways: Collection[str]) -> None:
    """Adds the hidden option by which a bench is told to measure one way and print the figures as JSON."""
    parser.add_argument("--memory-of", choices=ways, help=argparse.SUPPRESS)


def in_own_process(arguments: Sequence[str], way: str) -> Any:
    """Runs this bench again with `--memory-of WAY` in a fresh process; returns the figures that it prints.

    Args:
        arguments: of `python -m gp.bench`.
        way: what is measured there.
    """
    command = [sys.executable, "-m", "gp.bench", *arguments, "--memory-of", way]
    environment = {**os.environ, **PLAIN_MALLOC}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def peak_of(run: Callable[[], Any], device: str) -> float:
    """Peak memory of a run above what is in use before it, MiB: resident, or allocated by torch on a GPU."""
    gc.collect()
    memory = PeakMemory(device)
    run()
    return or_nan(memory.above_mib())


def or_nan(mib: float | None) -> float:
    """A figure for a table where the system may not be able to tell."""
    return math.nan if mib is None else mib
