"""A worker process without a model: it says who it is, waits, or dies, as the question tells it."""

from __future__ import annotations

import os

from gp.serve.events import Begun, Drop, Ended, Job, Ready, Stop


def work(connection, config, device, sharing):
    """Answers `who` with its process, device and the workers of that device; `die` ends it, `wait` gets no answer."""
    connection.send(Ready())
    while not isinstance(message := connection.recv(), Stop):
        if isinstance(message, Drop):
            continue
        assert isinstance(message, Job)
        (what,) = message.request.messages[0].parts
        if what == "die":
            os._exit(1)
        if what == "who":
            connection.send(Begun(message.number, 1, 0, 0, 1))
            said = f"{os.getpid()} {device} {sharing}"
            connection.send(Ended(message.number, said, said, "stop", 1))
