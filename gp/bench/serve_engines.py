"""The servers that are measured, each a process of its own, as its users start it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx2

from gp.backbones import find_family
from gp.embedded import EMBEDDED_BASES
from gp.integrations.vllm import ARCHITECTURES, CPU_WORKER
from gp.integrations.vllm.settings import KEY

START_S = 600.0  # for loading a model
LOOK_S = 0.5  # between two looks whether it serves
END_S = 60.0
# of vLLM's server, on a CPU: nothing is compiled, and its worker is asked for positions of pruned prompts
CPU_FLAGS = ("--enforce-eager", "--dtype", "float32")
CPU_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1"}  # GiB


def vllm_command(
    python: str, base: str, port: int, device: str, more: Sequence[str], pruning: Mapping[str, Any] | None
) -> list[str]:
    """vLLM's server of a base; with `pruning` (see docs/vllm.md) the plug-in's model of it."""
    place = str(EMBEDDED_BASES.get(base, base))
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", place, "--served-model-name", base]
    command += ["--host", "127.0.0.1", "--port", str(port), *(CPU_FLAGS if device == "cpu" else ()), *more]
    if pruning is not None:
        family, _ = find_family(place)
        overrides = {"architectures": [ARCHITECTURES[family.model_type]], KEY: pruning}
        command += ["--hf-overrides", json.dumps(overrides), "--trust-request-mm-kwargs"]  # each names its method
        command += ["--worker-cls", CPU_WORKER] if device == "cpu" else []
    return command


def gp_command(base: str, glimpse: str | None, port: int, device: str, more: Sequence[str]) -> list[str]:
    """Our own server of a base."""
    trained = [f"model.glimpse={glimpse}"] if glimpse else []
    own = [f"model.base={base}", *trained, f"port={port}", f"devices={device}", *more]
    return [sys.executable, "-m", "gp.serve", *own]


def front_command(base: str, glimpse: str | None, port: int, device: str, upstream: str) -> list[str]:
    """The front, whose model is the base itself."""
    trained = [f"model.glimpse={glimpse}"] if glimpse else []
    own = [f"model.base={base}", *trained, f"port={port}", f"device={device}", f"upstream={upstream}"]
    return [sys.executable, "-m", "gp.front", *own]


@contextmanager
def running(name: str, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """A server while it serves; ended with its children behind it.

    Raises:
        ValueError: it ends before it serves, or takes too long, with the last lines that it wrote.
    """
    with open(log, "w", encoding="utf-8") as out:
        process = start(command, out, environment)
        try:
            wait_until_up(name, process, port, log)
            yield
        finally:
            end(process)


def start(command: Sequence[str], out: IO[str], environment: Mapping[str, str]) -> subprocess.Popen:
    """Starts a server in a process group of its own."""
    everything = {**os.environ, **environment}
    return subprocess.Popen(command, stdout=out, stderr=out, env=everything, start_new_session=True)


def wait_until_up(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Returns when a server's `/health` says that it serves."""
    latest = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < latest:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                return
        except httpx2.HTTPError:
            pass  # not yet
        time.sleep(LOOK_S)
    how = "does not serve" if process.poll() is None else f"ended with status {process.returncode}"
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    raise ValueError(f"{name} {how}: " + "\n".join(said))


def end(process: subprocess.Popen) -> None:
    """Ends a server as Ctrl-C does, and what is left of its group by force."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            break
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            continue


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    taken = [socket.socket() for _ in range(count)]
    try:
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]
    finally:
        for one in taken:
            one.close()


def environment_of(device: str) -> dict[str, Any]:
    """What vLLM's processes find in their environment beside what is there."""
    return dict(CPU_ENVIRONMENT) if device == "cpu" else {}
