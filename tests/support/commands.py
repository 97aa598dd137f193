"""The commands of the repository, run as users run them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port"]
PATCHED = """
import sys
sys.path.insert(0, {root!r})
{patch}
import evaluate
if __name__ == "__main__":
    sys.exit(evaluate.main())
"""
OF_LAUNCHERS = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def begin(*arguments: str, **variables: str) -> subprocess.Popen:
    """Starts `python ARGUMENTS` in the root of the repository."""
    return _begin([sys.executable, *map(str, arguments)], variables)


def begin_patched(folder: Path, patch: str, *arguments: str, launcher: Sequence[str] = ()) -> subprocess.Popen:
    """Starts `python evaluate.py ARGUMENTS` in a group of its own, behind Python that makes something slow or fail.

    Args:
        folder: the program is written there; processes that it starts run the same one.
        patch: the Python.
        arguments: of evaluate.py.
        launcher: what takes the place of `python`.
    """
    program = folder / "patched.py"
    program.write_text(PATCHED.format(root=str(ROOT), patch=patch))
    return _begin([*(launcher or [sys.executable]), str(program), *map(str, arguments)], {}, start_new_session=True)


def finish(process: subprocess.Popen, status: int = 0) -> str:
    """What it printed; AssertionError if it ends with another status."""
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == status, output + errors
    return output


def run(*arguments: str, **variables: str) -> str:
    """Runs `python ARGUMENTS`; see `finish`."""
    return finish(begin(*arguments, **variables))


def torchrun(*arguments: str) -> str:
    """Runs `torchrun --nproc_per_node 2 ARGUMENTS`."""
    return finish(_begin([*TORCHRUN, free_port(), *map(str, arguments)], {}))


def srun(*arguments: str) -> str:
    """Runs two processes with the variables that SLURM gives to the tasks of a step."""
    shared = {
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODELIST": "localhost",
        "SLURM_JOB_NAME": "gp",
    }
    shared |= {"SLURM_JOB_ID": "7", "SLURM_NODEID": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    tasks = [begin(*arguments, **shared, SLURM_PROCID=rank, SLURM_LOCALID=rank) for rank in ("0", "1")]
    return "".join([finish(task) for task in tasks])


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def _begin(call: list[str], variables: dict[str, str], **options) -> subprocess.Popen:
    inherited = {name: value for name, value in os.environ.items() if name not in OF_LAUNCHERS}
    environment = {**inherited, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **variables}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(call, cwd=ROOT, env=environment, **pipes, **options)
