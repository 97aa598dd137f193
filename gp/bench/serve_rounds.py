"""The rounds of `python -m gp.bench serve`: all servers at once, asked in turn."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gp.bench.serve_clients import Timed, Way, ask_all
from gp.bench.serve_engines import environment_of, free_ports, front_command, gp_command, running, vllm_command
from gp.bench.serve_questions import Question, read_questions
from gp.integrations.vllm.settings import KEY
from gp.metrics import exact_match

__all__ = ["WARM_UP", "measure", "read_questions", "servers"]
SERVERS = ("vllm", "plugin", "front", "gp")
WARM_UP = 2  # questions of each way that are not counted


@dataclass
class Cell:
    """What was found of one way at one concurrency.

    Attributes:
        rates: requests a second, of each round.
        answers: of all rounds.
        right: of each answer.
    """

    rates: list[float] = field(default_factory=list)
    answers: list[Timed] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)


@contextmanager
def servers(options: argparse.Namespace, logs: Path) -> Iterator[list[Way]]:
    """All servers while they run, as the ways that they can be asked."""
    ports = dict(zip(SERVERS, free_ports(len(SERVERS)), strict=True))
    at = {name: f"http://127.0.0.1:{port}/v1" for name, port in ports.items()}
    more, device = shlex.split(options.vllm_args), options.device
    served = [f"prune.budget={options.budget:g}", f"name={options.base}", *shlex.split(options.serve_args)]
    pruning = {"method": options.methods[0], "budget": options.budget}
    if options.glimpse is not None and "glimpse" in options.methods:
        pruning["glimpse"] = options.glimpse
    commands = {
        "vllm": vllm_command(options.vllm, options.base, ports["vllm"], device, more, None),
        "plugin": vllm_command(options.vllm, options.base, ports["plugin"], device, more, pruning),
        "gp": gp_command(options.base, options.glimpse, ports["gp"], device, served),
        "front": front_command(options.base, options.glimpse, ports["front"], device, at["vllm"]),
    }
    with ExitStack() as stack:
        for name, command in commands.items():
            if name in options.ways:
                print(f"starting {name}", file=sys.stderr, flush=True)
                log = logs / f"{name}.log"
                stack.enter_context(running(name, command, ports[name], log, environment_of(device)))
        yield [way for name in SERVERS if name in options.ways for way in ways_of(name, at[name], options)]


def ways_of(name: str, address: str, options: argparse.Namespace) -> list[Way]:
    """The ways in which one server is asked: the plug-in once for each method."""
    if name != "plugin":
        return [Way({"vllm": "vLLM", "gp": "gp.serve"}.get(name, name), address, options.base, {})]
    budget = {"budget": options.budget}
    return [
        Way(f"vLLM, {one}", address, options.base, {"mm_processor_kwargs": {KEY: {"method": one, **budget}}})
        for one in options.methods
    ]


def measure(
    ways: Sequence[Way], questions: Sequence[Question], options: argparse.Namespace
) -> dict[tuple[int, str], Cell]:
    """Rounds, each with all concurrencies and all ways, which begin in turn."""
    cells: dict[tuple[int, str], Cell] = defaultdict(Cell)
    for way in ways:
        ask_all(way, questions[:WARM_UP], 1, options.max_tokens)
    start = WARM_UP
    for number in range(options.repeats):
        for concurrency in options.concurrency:
            asked = questions[start : start + options.samples]
            start += options.samples
            for k in range(len(ways)):
                way = ways[(k + number) % len(ways)]
                answers, seconds = ask_all(way, asked, concurrency, options.max_tokens)
                cell = cells[concurrency, way.name]
                cell.rates.append(len(asked) / seconds)
                cell.answers += answers
                cell.right += [exact_match(a.text, q.answer) for a, q in zip(answers, asked, strict=True)]
            print(f"round {number + 1} of {options.repeats}, concurrency {concurrency}", file=sys.stderr, flush=True)
    return {(many, way.name): cells[many, way.name] for many in options.concurrency for way in ways}
