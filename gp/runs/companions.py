"""Processes of one command end together, and one of them says why."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import lightning.pytorch as pl
import torch

from gp.cli import Stop
from gp.runs.copies import Copy

FAILED = 1
LOOK_EVERY_S = 0.02
LAST_WORDS_S = 5.0  # a process that failed writes its traceback before it is gone
ECHOES = ("gloo", "NCCL")  # in the messages of connections that broke


class Companions:
    """The other processes of a command.

    torchrun and SLURM end all when one fails. On its own Lightning starts them from the first one, and ends that one
    with SIGKILL some seconds after another has failed: without its status, and maybe within somebody's last words.

    Args:
        trainer: of this process.
        copies: of this process, which are at work on the same command.
    """

    def __init__(self, trainer: pl.Trainer, copies: Sequence[Copy | subprocess.Popen] = ()) -> None:
        self._trainer = trainer
        self._children: list[subprocess.Popen | Copy] = list(copies)
        self._on_sigterm = signal.getsignal(signal.SIGTERM)

    def adopt(self) -> None:
        """Takes children and SIGTERM over from Lightning; call it when these are started, and when signals are set.

        Its handler of SIGTERM broadcasts, which hangs or breaks if the others are in an exchange of another kind.
        """
        self._children += take_over(self._trainer)
        if threading.current_thread() is threading.main_thread() and self._on_sigterm is not None:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def check(self) -> None:
        """Ends this process with the status of a child that has failed; the child has said why.

        Raises:
            Stop: a child was killed, or ended with another status than 0.
        """
        for rank, child in enumerate(self._children, start=1):
            if status := child.poll():
                how = f"status {status}" if status > 0 else signal.Signals(-status).name
                raise Stop(max(status, FAILED), f"process {rank} of this command has ended ({how}), the others do, too")

    def wait(self, group: torch.distributed.ProcessGroup | None) -> None:
        """Waits until all processes of a group are here; None: this one is alone.

        Signals and children are noticed meanwhile, which they are not within a call of torch's.

        Raises:
            Stop: see `check`.
            RuntimeError: another process is gone.
        """
        if group is None:
            return
        work = torch.distributed.barrier(group, async_op=True)
        while not work.is_completed():
            time.sleep(LOOK_EVERY_S)
            self.check()
        work.wait()

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Waits for the children; ends them if the body fails, silently if that is only the echo of another's end.

        Raises:
            Stop: the connection to another process broke.
        """
        try:
            yield
            self._leave_together()
        except BaseException as error:
            echo = self._echo() if is_echo(error) else None
            for child in self._children:
                child.kill()  # what they have answered is on disk
            for child in self._children:
                child.wait()
            if echo is not None:
                raise echo from None
            raise

    def _leave_together(self) -> None:
        """Children that are done have little left to do; none of them outlives the command."""
        limit = time.monotonic() + LAST_WORDS_S
        while any(child.poll() is None for child in self._children) and time.monotonic() < limit:
            time.sleep(LOOK_EVERY_S)
        for child in self._children:
            child.kill()

    def _echo(self) -> Stop:
        limit = time.monotonic() + LAST_WORDS_S
        while self._children and time.monotonic() < limit:
            try:
                self.check()
            except Stop as stop:
                return stop
            time.sleep(LOOK_EVERY_S)
        line = "another process of this command has ended, this one does, too" if self._trainer.is_global_zero else ""
        return Stop(FAILED, line)


def take_over(trainer: pl.Trainer) -> list[subprocess.Popen]:
    """The processes that Lightning has started for a trainer; its observer has none to look after from here on."""
    started = getattr(trainer.strategy.launcher, "procs", [])
    taken = list(started)
    started.clear()
    return taken


def is_echo(error: BaseException) -> bool:
    """Whether an error says no more than that the connection to another process broke."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ECHOES)
