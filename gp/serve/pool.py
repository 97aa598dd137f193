"""The server's side of its workers: starts them, deals requests to them, and starts them again if they die."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from gp.serve import worker
from gp.serve.events import Begun, Drop, Ended, Event, Failed, Job, Ready, Stop, Text
from gp.serve.options import ServeConfig
from gp.serve.refusing import Refused
from gp.serve.request import ChatRequest

DIED = Refused(503, "the worker that answered ended unexpectedly: ask again", code="worker_died")
LATE = Refused(504, "the answer was not ready in time", code="timeout")
MOST_RESTARTS = 5  # without an answer in between
JOIN_S = 5


class WorkerHandle:
    """One worker process.

    Args:
        config: options of the server.
        device: of the worker.
        sharing: workers that have this device.
        on_death: called in the event loop when the process has ended and was not told to.
    """

    def __init__(
        self, config: ServeConfig, device: str, sharing: int, on_death: Callable[[WorkerHandle], None]
    ) -> None:
        self.device, self.sharing, self.on_death = device, sharing, on_death
        self.loop = asyncio.get_running_loop()
        self.waiting: dict[int, asyncio.Queue[Event]] = {}
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.stopping = False
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        given = (theirs, config, device, sharing)
        self.process = context.Process(target=worker.work, args=given, name=f"gp.serve {device}")
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self._outbox: list[Any] = []
        self._has_mail = threading.Condition()
        for work in (self._listen, self._post):
            threading.Thread(target=work, daemon=True).start()

    def send(self, message: Job | Drop | Stop) -> None:
        """Hands a message to the thread that writes: the pipe may be full of pictures."""
        with self._has_mail:
            self._outbox.append(message)
            self._has_mail.notify()

    def stop(self) -> None:
        """Lets the worker end when what it has is answered."""
        self.stopping = True
        self.send(Stop())

    def end(self) -> None:
        """Ends the process now if it has not ended by itself; blocks for some seconds at most."""
        for way in (lambda: None, self.process.terminate, self.process.kill):
            way()
            self.process.join(JOIN_S)
            if self.process.exitcode is not None:
                break
        self.connection.close()

    def _post(self) -> None:
        while True:
            with self._has_mail:
                while not self._outbox:
                    self._has_mail.wait()
                message = self._outbox.pop(0)
            try:
                self.connection.send(message)
            except (OSError, ValueError):
                return
            if isinstance(message, Stop):
                return

    def _listen(self) -> None:
        try:
            while True:
                self._in_loop(self._hear, self.connection.recv())
        except (EOFError, OSError):
            self._in_loop(self._dead)

    def _in_loop(self, work: Callable, *arguments: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(work, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits for anything
            return

    def _hear(self, event: Event) -> None:
        if isinstance(event, Ready):
            if event.problem:
                self.ready.set_exception(ValueError(event.problem))
            else:
                self.ready.set_result(None)
        elif queue := self.waiting.get(event.number):
            queue.put_nowait(event)

    def _dead(self) -> None:
        for number, queue in self.waiting.items():
            queue.put_nowait(Failed(number, DIED))
        if not self.ready.done():
            self.ready.set_exception(ValueError(f"the worker on {self.device} ended before it was ready"))
        with self._has_mail:
            self._outbox.append(Stop())  # lets the thread that writes end
            self._has_mail.notify()
        if not self.stopping:
            self.on_death(self)


class Pool:
    """All workers.

    Args:
        config: options of the server.
        devices: of the workers, one of them for each entry.
    """

    def __init__(self, config: ServeConfig, devices: Sequence[str]) -> None:
        self.config, self.devices = config, tuple(devices)
        self.workers: list[WorkerHandle] = []
        self.restarts = 0
        self.is_closing = False
        self._numbers = itertools.count()
        self._fruitless = 0  # restarts since the last answer
        self._tasks: set[asyncio.Task] = set()

    async def start(self) -> None:
        """Starts the workers and waits until they have loaded their model; ValueError says why one has not."""
        self.workers = [
            WorkerHandle(self.config, device, self.devices.count(device), self._on_death) for device in self.devices
        ]
        try:
            await asyncio.gather(*(one.ready for one in self.workers))
        except BaseException:
            self.is_closing = True
            for one in self.workers:
                one.stopping = True
                one.process.terminate()
            await self._end()
            raise

    async def close(self) -> None:
        """Lets the workers finish what they have, for a while, and ends them."""
        self.is_closing = True
        for one in self.workers:
            one.stop()
        await self._end()

    @property
    def is_healthy(self) -> bool:
        """Whether some worker can answer."""
        return any(is_up(one) for one in self.workers)

    @property
    def num_open(self) -> int:
        """Requests that are neither answered nor dropped."""
        return sum(len(one.waiting) for one in self.workers)

    async def ask(self, request: ChatRequest) -> AsyncGenerator[Begun | Text | Ended, None]:
        """Yields what a worker says about a request, up to `Ended`. Closing the iterator drops the request.

        Raises:
            Refused: too many wait, the request is wrong, the answer takes too long, or the worker died.
        """
        chosen = self._least_busy()
        number, queue = next(self._numbers), asyncio.Queue[Event]()
        deadline = time.monotonic() + self.config.limits.time_s
        chosen.waiting[number] = queue
        chosen.send(Job(number, request, deadline))
        ended = False
        try:
            while not ended:
                try:
                    event = await asyncio.wait_for(queue.get(), max(deadline - time.monotonic(), 0))
                except asyncio.TimeoutError:
                    raise LATE from None
                if isinstance(event, Failed):
                    ended = True
                    raise event.why
                if isinstance(event, Ended):
                    ended, self._fruitless = True, 0
                assert not isinstance(event, Ready)
                yield event
        finally:
            del chosen.waiting[number]
            if not ended:
                chosen.send(Drop(number))

    def _least_busy(self) -> WorkerHandle:
        up = [one for one in self.workers if is_up(one)]
        if not up or self.is_closing:
            raise Refused(503, "no worker is ready: try again later", code="not_ready")
        chosen = min(up, key=lambda one: len(one.waiting))
        most = self.config.limits.batch + self.config.limits.waiting
        if len(chosen.waiting) >= most:
            raise Refused(429, f"{most} requests wait already: try again later", code="too_many_requests")
        return chosen

    def _on_death(self, dead: WorkerHandle) -> None:
        if self.is_closing or self._fruitless >= MOST_RESTARTS:
            return
        self.restarts += 1
        self._fruitless += 1
        fresh = WorkerHandle(self.config, dead.device, dead.sharing, self._on_death)
        fresh.ready.add_done_callback(lambda future: future.exception())  # retrieved: health says that it is not up
        self.workers[self.workers.index(dead)] = fresh
        task = asyncio.ensure_future(asyncio.to_thread(dead.end))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(one.end) for one in self.workers))


def is_up(one: WorkerHandle) -> bool:
    """Whether a worker has loaded its model and lives."""
    return one.ready.done() and one.ready.exception() is None and one.process.exitcode is None
