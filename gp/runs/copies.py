"""Processes of a command on CPUs, as copies of the first one.

Lightning starts each of them as a new command, which imports torch and Lightning again after the first one has: seconds
that an evaluation of the embedded model has not. A copy has it all, and what is wrong with the command line was said
before there were two to say it. On GPUs Lightning does it: what a driver has set up cannot be copied.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from gp.config import TrainerConfig

COPYABLE = ("auto", "ddp")  # strategies with one process for each device


class Copy:
    """A copy of this process at work; its methods are those of `subprocess.Popen`.

    Args:
        rank: of the copy.
        work: gives its exit status.
    """

    def __init__(self, rank: int, work: Callable[[], int]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._status: int | None = None
        self._pid = os.fork()
        if self._pid == 0:
            os.environ["LOCAL_RANK"] = str(rank)
            os._exit(_status_of(work))

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it is at work."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """Exit status, once it has ended."""
        return self._wait(0)

    def kill(self) -> None:
        """Ends it."""
        if self.poll() is None:
            os.kill(self._pid, signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self._pid, options)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status


def start_copies(settings: TrainerConfig, work: Callable[[], int]) -> list[Copy]:
    """Starts the other processes of this command, if it is one on several CPU devices that nobody else has started.

    Call it before torch has worked: a copy has none of the threads that torch keeps.

    Args:
        settings: `devices` of this machine.
        work: of a copy; gives its exit status.

    Returns:
        The copies; none where Lightning starts processes, or there is one.
    """
    if not _are_cpus(settings) or _is_started() or sys.platform != "linux":
        return []
    devices = settings.devices
    if not isinstance(devices, int) or devices < 2 or settings.num_nodes > 1 or settings.strategy not in COPYABLE:
        return []
    # what Lightning gives to the processes that it starts, and knows those by that are started already
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": find_free_network_port(), "WORLD_SIZE": devices}
    os.environ.update({name: str(value) for name, value in {**place, "NODE_RANK": 0, "LOCAL_RANK": 0}.items()})
    return [Copy(rank, work) for rank in range(1, devices)]


def _are_cpus(settings: TrainerConfig) -> bool:
    return settings.accelerator == "cpu" or (settings.accelerator == "auto" and not torch.cuda.is_available())


def _is_started() -> bool:
    """Whether somebody has started the processes of this command already."""
    return "LOCAL_RANK" in os.environ or TorchElasticEnvironment.detect() or SLURMEnvironment.detect()


def _status_of(work: Callable[[], int]) -> int:
    status = 1
    try:
        status = work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return status
