"""Processes that share a sharded base go on in step: a gathering of weights takes all of them.

Each round of a validation begins with a word from every process. One that has no batch left runs its last one again,
and forgets the result, until none has one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class InStep:
    """Rounds of one validation.

    Args:
        any_process: whether a process says yes; takes all of them.
    """

    def __init__(self, any_process: Callable[[bool], bool]) -> None:
        self._any, self._last = any_process, None

    def begin(self, batch: Any) -> None:
        """Begins a round with a batch of this process."""
        self._last = batch
        self._any(True)

    def finish(self, again: Callable[[Any], Any]) -> None:
        """Keeps up with those that have batches left.

        Raises:
            ValueError: this process had none at all, and another one has.
        """
        while self._any(False):
            if self._last is None:
                raise ValueError(
                    "a process has no validation question while others have: with trainer.strategy=fsdp2 there must be "
                    "at least as many as processes"
                )
            again(self._last)
