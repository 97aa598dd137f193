"""`train.py` as a user starts it, in a process of its own, on a micro run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120
PATCHED = """
import sys
{patch}
import train
if __name__ == "__main__":
    sys.exit(train.main(sys.argv[1:]))
"""


def start(folder: Path, *overrides: str, patch: str = "", cwd: Path = ROOT, **environment: str) -> subprocess.Popen:
    """Starts `python train.py --config FOLDER/micro.yaml ...` without an evaluation at the end.

    Args:
        folder: where `tests.support.micro_run.write_config` wrote.
        overrides: `key=value`.
        patch: Python that runs before it, to make something fail.
        cwd: working directory.
        environment: variables to add.
    """
    program = ROOT / "train.py"
    if patch:
        program = folder / "patched.py"
        program.write_text(PATCHED.format(patch=patch))
    command = [sys.executable, str(program), "--config", str(folder / "micro.yaml"), "eval.after_training=false"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
    return subprocess.Popen(
        [*command, *overrides], cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def wait_for(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Waits until something holds; AssertionError if the process ends before."""
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None and time.monotonic() < limit, process.communicate(timeout=PATIENCE_S)
        time.sleep(0.02)


def checkpoint(folder: Path) -> dict:
    """The run's `last.ckpt`."""
    return torch.load(folder / "runs/micro/last.ckpt", weights_only=True)
