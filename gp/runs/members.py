"""Runs commands one after the other, each in a process of its own; an interrupt reaches the one at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gp.cli import Stop, Terminated

INSTALLED = ("site-packages", "dist-packages")  # where pip puts packages
LAUNCHED = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def refuse_launcher(what: str) -> None:
    """ValueError inside torchrun or srun: their processes belong to one run."""
    if (number := next((os.environ[name] for name in LAUNCHED if name in os.environ), None)) is not None:
        raise ValueError(
            f"{what}: one command of several runs cannot be started by torchrun or srun (this is process {number}): "
            "start one for each run, or give trainer.devices=N"
        )


def run_command(module: str, arguments: Sequence[str], what: str, again: str) -> None:
    """Runs `python -m MODULE ARGUMENTS` to its end.

    Args:
        module: of a command.
        arguments: of it.
        what: names it in the message if it fails.
        again: how to go on then.

    Raises:
        Stop: it ended with another status than 0, which becomes this command's.
    """
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], env=_environment())
    try:
        status = process.wait()
    except KeyboardInterrupt:  # the terminal tells the whole group, so it is ending by itself
        process.wait()
        raise
    except Terminated:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    if status:
        raise Stop(status if status > 0 else 128 - status, f"{what} ended with status {status}; {again}")


def _environment() -> dict[str, str]:
    """This environment; where gp is not installed but on the path by its clone, the new process finds it there, too."""
    root = Path(__file__).resolve().parents[2]
    if root.name in INSTALLED:
        return dict(os.environ)
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}
