"""Signals that end a run: while it trains they wait for the step at hand, and a checkpoint of it is written.

SIGINT is Ctrl-C; SIGTERM comes from schedulers and from Kubernetes; SIGUSR1 is what SLURM is told to send before it
takes a machine back (`--signal=USR1@60`), and means the same as SIGTERM here.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from gp.cli import INTERRUPTED, TERMINATED, Stop
from gp.runs.ends import words_of

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
FAILED = 1


class Signals:
    """Keeps the first signal until the trainer asks for it; a second one ends the run where it is.

    Attributes:
        number: of the signal that came; None: none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}
        self._owner = os.getpid()

    def catch(self) -> None:
        """Takes the signals over; only the main thread of a process can."""
        self._owner = os.getpid()
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._before = {number: signal.signal(number, self._handle) for number in CAUGHT}

    def release(self) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def came_to_anybody(self, trainer: pl.Trainer) -> bool:
        """Whether any process of the run got one; called on all of them at the same step."""
        return trainer.strategy.reduce_boolean_decision(self.number is not None, all=False)

    @property
    def status(self) -> int:
        """Exit status; a process that got no signal itself ends as the others do."""
        return INTERRUPTED if self.number == signal.SIGINT else TERMINATED

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked loader process: it dies of them as without this handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self.number is not None:
            raise Stop(self.status)
        else:
            self.number = number


def early_end(error: BaseException, signals: Signals) -> tuple[int, str] | None:
    """Exit status and words for an end that no traceback explains: a signal, memory, a killed loader process.

    Args:
        error: that ended the fit.
        signals: of the run.

    Returns:
        None for any other error.
    """
    if signals.number is not None:
        how = "interrupted" if signals.number == signal.SIGINT else "terminated"
        return signals.status, f"{how} ({signal.Signals(signals.number).name})"
    if isinstance(error, Stop):
        return signals.status, "terminated (signal to another process of the run)"
    words = words_of(error)
    return None if words is None else (FAILED, words)
