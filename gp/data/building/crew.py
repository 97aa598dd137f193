"""The crew that packs: this process, or several that own a share of the shards each.

Each shard belongs to one process and each process does its tasks in order, so what a shard holds does not depend on
how many there are. Tasks name where an image's bytes are, not the bytes.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from gp.data.building.packer import Packer, PackReport, PackWork, Task
from gp.data.building.shard_file import ShardState

BATCH = 8  # tasks sent at once to a process that has others to do
MAX_WAITING = 4 * BATCH  # tasks per process: more would outrun the system's cache of the archive
STATES, FINISH = "states", "finish"


class Crew(Protocol):
    """Packs images."""

    def start(self, work: PackWork) -> None:
        """Takes up the work; call it once, before any task."""

    def submit(self, task: Task) -> None:
        """Packs an image, now or soon."""

    def ask_states(self) -> None:
        """`states` will hold where all shards stand after the tasks submitted so far."""

    def finish(self) -> dict[int, ShardState]:
        """Ends all shards; afterwards `reports` has what was left to report."""

    def reports(self) -> Iterator[PackReport]:
        """Reports that have come since the last call."""

    def states(self) -> dict[int, ShardState] | None:
        """The answer to `ask_states`, once; None: not yet."""

    def close(self) -> None:
        """Ends processes."""


def make_crew(workers: int | None) -> Crew:
    """Forks at once, while this process is small.

    Args:
        workers: processes; 0: none but this one; None: one per CPU that this one may use.
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Processes(workers) if workers else ThisProcess()


class ThisProcess:
    """Packs at once."""

    def start(self, work: PackWork) -> None:
        self._packer = Packer(work)
        self._report = PackReport()
        self._states: dict[int, ShardState] | None = None

    def submit(self, task: Task) -> None:
        self._packer.pack(task, self._report)

    def ask_states(self) -> None:
        self._states = self._packer.states()

    def finish(self) -> dict[int, ShardState]:
        return self._packer.finish()

    def reports(self) -> Iterator[PackReport]:
        report, self._report = self._report, PackReport()
        yield report

    def states(self) -> dict[int, ShardState] | None:
        states, self._states = self._states, None
        return states

    def close(self) -> None:
        pass


class Processes:
    """Packs in other processes. They end when this one does, however it ends: their pipes close."""

    def __init__(self, count: int):
        context = multiprocessing.get_context("fork")
        self._tasks: list[Connection] = []
        self._answers: list[Connection] = []
        self._processes = []
        for _ in range(count):
            task_reader, task_writer = context.Pipe(duplex=False)
            answer_reader, answer_writer = context.Pipe(duplex=False)
            others = [*self._tasks, *self._answers, task_writer, answer_reader]
            process = context.Process(target=_work, args=(task_reader, answer_writer, others), daemon=True)
            process.start()
            task_reader.close()
            answer_writer.close()
            self._tasks.append(task_writer)
            self._answers.append(answer_reader)
            self._processes.append(process)
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._waiting = [0] * count
        self._unsent: list[list[Task]] = [[] for _ in range(count)]
        self._reports: list[PackReport] = []
        self._states: list[dict[int, ShardState]] = []
        self._closing = False

    def start(self, work: PackWork) -> None:
        for share, tasks in enumerate(self._tasks):
            self._send(tasks, (work, share, len(self._tasks)))
        threading.Thread(target=self._receive, daemon=True).start()

    def submit(self, task: Task) -> None:
        number = task.shard % len(self._tasks)
        self._unsent[number].append(task)
        if not self._waiting[number] or len(self._unsent[number]) >= BATCH:
            self._send_tasks(number)

    def ask_states(self) -> None:
        self._send_all(STATES)

    def finish(self) -> dict[int, ShardState]:
        self._states = []
        self._send_all(FINISH)
        while len(self._states) < len(self._tasks):
            self._take()
        return self._joined()

    def reports(self) -> Iterator[PackReport]:
        while not self._inbox.empty():
            self._take()
        reports, self._reports = self._reports, []
        yield from reports

    def states(self) -> dict[int, ShardState] | None:
        return self._joined() if len(self._states) == len(self._tasks) else None

    def close(self) -> None:
        self._closing = True
        for tasks in self._tasks:
            tasks.close()
        for process in self._processes:
            process.join()

    def _joined(self) -> dict[int, ShardState]:
        states, self._states = self._states, []
        return {number: state for share in states for number, state in share.items()}

    def _take(self) -> None:
        """One message."""
        number, message = self._inbox.get()
        if isinstance(message, BaseException):
            raise message
        if isinstance(message, PackReport):
            self._waiting[number] -= message.tasks
            self._reports.append(message)
        else:
            self._states.append(message)

    def _send_all(self, request: str) -> None:
        """Sends a message that each process handles after all tasks submitted so far."""
        for number, tasks in enumerate(self._tasks):
            self._send_tasks(number)
            self._send(tasks, request)

    def _send_tasks(self, number: int) -> None:
        batch = self._unsent[number]
        while self._waiting[number] + len(batch) > MAX_WAITING:
            self._take()
        if batch:
            self._waiting[number] += len(batch)
            self._unsent[number] = []
            self._send(self._tasks[number], batch)

    def _send(self, tasks: Connection, message: object) -> None:
        try:
            tasks.send(message)
        except BrokenPipeError:
            while True:  # its last words say why
                self._take()

    def _receive(self) -> None:
        """Runs in a thread, so that no process ever waits to be heard while this one waits for it."""
        open_answers = dict(zip(self._answers, range(len(self._answers))))
        while open_answers:
            ready: list[Any] = wait(list(open_answers))  # pipes all
            for answers in ready:
                number = open_answers[answers]
                try:
                    self._inbox.put((number, answers.recv()))
                except EOFError:
                    del open_answers[answers]
                    if not self._closing:
                        lost = (
                            f"process {self._processes[number].pid} of the build ended; was it killed for its memory?"
                        )
                        self._inbox.put((number, OSError(lost)))


def _work(tasks: Connection, answers: Connection, others: list[Connection]) -> None:
    """A process: tasks in, reports and states out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the main process, which then closes the pipe
    for connection in others:
        connection.close()  # or this process would keep the pipes of its sisters open
    try:
        _serve(tasks, answers)
    except (EOFError, BrokenPipeError):
        pass  # the main process has ended
    except Exception as error:
        answers.send(error if isinstance(error, ValueError | OSError) else RuntimeError(repr(error)))


def _serve(tasks: Connection, answers: Connection) -> None:
    packer = Packer(*tasks.recv())
    while True:
        message = tasks.recv()
        if message == STATES:
            answers.send(packer.states())
        elif message == FINISH:
            answers.send(packer.finish())
        else:
            report = PackReport()
            for task in message:
                packer.pack(task, report)
            answers.send(report)
