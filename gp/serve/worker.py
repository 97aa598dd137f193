"""A worker process: loads the model onto one device, prepares requests as they come, and answers them in batches."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from gp.allocator import MemoryBound, keep_freed_memory
from gp.serve.events import Drop, Event, Failed, Job, Ready, Stop
from gp.serve.options import ServeConfig
from gp.serve.refusing import Refused

LOST = 1  # exit status when the server has gone away
KEPT_BYTES = 2**28  # that a worker grows by before it gives freed memory back


def work(connection: Connection, config: ServeConfig, device: str, sharing: int = 1) -> None:
    """Runs in a process of its own until `Stop` comes or the server goes away; `sharing` workers have the device."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server says when to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_freed_memory()
    try:
        if device == "cpu":
            share_threads(sharing)
        model = load(config, device)
    except Exception as error:
        if not isinstance(error, ValueError | OSError):
            traceback.print_exc()
        connection.send(Ready(f"{type(error).__name__}: {error}"))
        return
    connection.send(Ready())
    Worker(model, config, connection).run()


def load(config: ServeConfig, device: str) -> Any:
    """The model of the options on a device; ValueError or OSError if there is none, or its options are wrong."""
    from gp.serve.loading import load_model
    from gp.serve.preparing import choose
    from gp.serve.request import ChatRequest

    model = load_model(config.model, device)
    try:
        choose(model, ChatRequest((), (), 1), config)
    except Refused as error:
        raise ValueError(f"pruner and prune: {error.message}") from error
    return model


def share_threads(sharing: int) -> None:
    """Takes a part of the threads that torch would take: more than there are cores get in each other's way."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // sharing))


class Worker:
    """Two threads share what is ready: one prepares what comes, the other one answers.

    Args:
        model: on its device.
        config: options of the server.
        connection: to the server.
    """

    def __init__(self, model: Any, config: ServeConfig, connection: Connection) -> None:
        self.model, self.config, self.connection = model, config, connection
        self.ready: list[Any] = []  # of `Prepared`, in the order in which they came
        self.dropped: set[int] = set()
        self.open: set[int] = set()  # numbers that came and are neither answered nor dropped
        self.changed = threading.Condition()
        self.telling = threading.Lock()
        self.stopping = False
        self.memory = MemoryBound(KEPT_BYTES)

    def run(self) -> None:
        """Answers until `Stop` has come and nothing is left."""
        from gp.serve.answering import answer

        threading.Thread(target=self._hear, daemon=True).start()
        while batch := self._next_batch():
            try:
                answer(self.model, batch, self.tell, self.dropped.__contains__)
            except Exception:
                traceback.print_exc()
            with self.changed:
                for one in batch:
                    self.dropped.discard(one.job.number)
                    self.open.discard(one.job.number)
            del batch  # its pictures are free before the look
            self.memory.look()

    def tell(self, event: Event) -> None:
        """Sends an event; the process ends if nobody is there to hear it."""
        try:
            with self.telling:
                self.connection.send(event)
        except OSError:
            os._exit(LOST)

    def _hear(self) -> None:
        """Takes what the server sends, until it goes away: then nothing is worth finishing."""
        try:
            while not isinstance(message := self.connection.recv(), Stop):
                if isinstance(message, Drop):
                    self._drop(message.number)
                else:
                    self._prepare(message)
        except (EOFError, OSError):
            os._exit(LOST)
        with self.changed:
            self.stopping = True
            self.changed.notify()

    def _prepare(self, job: Job) -> None:
        from gp.serve.preparing import prepare

        try:
            prepared = prepare(self.model, job, self.config)
        except Refused as why:
            return self.tell(Failed(job.number, why))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return self.tell(Failed(job.number, Refused(500, "internal error", code="internal_error")))
        with self.changed:
            self.open.add(job.number)
            self.ready.append(prepared)
            self.changed.notify()

    def _drop(self, number: int) -> None:
        with self.changed:
            if number in self.open:
                self.dropped.add(number)
                self.changed.notify()

    def _next_batch(self) -> Sequence[Any]:
        """Waits for requests that can be answered together; nothing when all is done."""
        limits = self.config.limits
        with self.changed:
            while True:
                self._clear()
                if self.ready:
                    break
                if self.stopping:
                    return []
                self.changed.wait()
            end = time.monotonic() + limits.batch_wait_ms / 1000
            while len(self._fitting()) < limits.batch and not self.stopping:
                if not self.changed.wait(max(end - time.monotonic(), 0)) or time.monotonic() >= end:
                    break
            self._clear()
            batch = self._fitting()
            self.ready = [one for one in self.ready if one not in batch]
        return batch or self._next_batch()

    def _fitting(self) -> list[Any]:
        """The first request that is ready, and those behind it that fit into a batch with it."""
        limits, longest = self.config.limits, 0
        batch: list[Any] = []
        for one in self.ready:
            widest = max(longest, one.length)
            if batch and (one.group != batch[0].group or widest * (len(batch) + 1) > limits.batch_tokens):
                continue
            batch.append(one)
            longest = widest
            if len(batch) == limits.batch:
                break
        return batch

    def _clear(self) -> None:
        """Lets go of requests that nobody waits for; those that are late were told so by the server itself."""
        gone = [one for one in self.ready if one.job.number in self.dropped or time.monotonic() > one.job.deadline]
        for one in gone:
            self.ready.remove(one)
            self.dropped.discard(one.job.number)
            self.open.discard(one.job.number)
