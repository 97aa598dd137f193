"""What travels between the server and its worker processes."""

from __future__ import annotations

from dataclasses import dataclass

from gp.serve.refusing import Refused
from gp.serve.request import ChatRequest


@dataclass(frozen=True)
class Job:
    """A request on its way to a worker.

    Args:
        number: of the request, never used twice.
        request: what is asked.
        deadline: `time.monotonic()` (one clock for all processes of a machine) after which nobody waits for the answer.
    """

    number: int
    request: ChatRequest
    deadline: float


@dataclass(frozen=True)
class Drop:
    """Nobody waits for the answer any more."""

    number: int


@dataclass(frozen=True)
class Stop:
    """No more requests come: end when those that are there are answered."""


@dataclass(frozen=True)
class Ready:
    """The worker has loaded its model; `problem` says why not."""

    problem: str | None = None


@dataclass(frozen=True)
class Begun:
    """The prompt has been prefilled and pruned.

    Args:
        number: of the request.
        prompt_tokens: of the prompt as it came, visual ones included.
        visual_all, visual_kept: visual tokens of the prompt, and those left in it after pruning.
        batch: requests that are answered together.
    """

    number: int
    prompt_tokens: int
    visual_all: int
    visual_kept: int
    batch: int


@dataclass(frozen=True)
class Text:
    """A piece of the answer, of a request that wants it in pieces."""

    number: int
    text: str


@dataclass(frozen=True)
class Ended:
    """The answer is whole.

    Args:
        number: of the request.
        text: all of it.
        rest: what no `Text` has brought yet.
        reason: `stop` or `length`.
        tokens: generated, the one that ends an answer included.
    """

    number: int
    text: str
    rest: str
    reason: str
    tokens: int


@dataclass(frozen=True)
class Failed:
    """There is no answer."""

    number: int
    why: Refused


Event = Ready | Begun | Text | Ended | Failed
