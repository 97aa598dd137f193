"""CPU time of one answer of the server's worker, alone and in a batch of eight, by what it goes into.

taskset -c 1 python -m tests.support.serve_profile glimpse none divprune        # ms, medians

One picture of 256 visual tokens and one question; HTTP and the pipe between the processes are not in it.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch

from gp.allocator import keep_freed_memory
from gp.engine.run import Run
from gp.model import GlimpseModel
from gp.serve.answering import answer
from gp.serve.events import Job
from gp.serve.options import load_serve_config
from gp.serve.preparing import prepare
from gp.serve.request import parse
from gp.serve.worker import load
from tests.support.serving import ROOT

QUESTION = "what number is on the green card ?"
BATCHES = {1: 12, 8: 5}  # requests at a time -> repetitions
BUDGET = 0.111
clock = time.process_time


def body_of(method: str) -> bytes:
    """A request; all but `glimpse` and `none` get a budget."""
    picture = base64.b64encode((ROOT / "docs" / "images" / "scene.png").read_bytes()).decode()
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    messages = [{"role": "user", "content": [shown, {"type": "text", "text": QUESTION}]}]
    more = {} if method in ("glimpse", "none") else {"budget": BUDGET}
    pruner = {} if method == "glimpse" else {"pruner": method}
    return json.dumps({"messages": messages, "max_tokens": 16, **pruner, **more}).encode()


def clocked(spent: Counter[str], owner: Any, name: str, into: str) -> None:
    """Has a function add its CPU time to what is spent."""
    function = getattr(owner, name)

    def timed(*arguments: Any, **named: Any) -> Any:
        start = clock()
        try:
            return function(*arguments, **named)
        finally:
            spent[into] += clock() - start  # type: ignore[assignment]

    setattr(owner, name, timed)


def profile(methods: Sequence[str], settings: Sequence[str] = ()) -> dict[str, dict[int, dict[str, float]]]:
    """Method -> requests at a time -> milliseconds of CPU time for each request."""
    keep_freed_memory()
    torch.set_num_threads(1)
    config = load_serve_config(None, ["model.base=tiny", "model.glimpse=tiny", *settings])
    model, spent = load(config, "cpu"), Counter[str]()
    clocked(spent, model.backbone, "encode_images", "tower")
    clocked(spent, Run, "prune", "pruner")  # view, scores, selection, compaction
    clocked(spent, Run, "_read", "pruner")
    clocked(spent, GlimpseModel, "decode", "decode")

    def once(body: bytes, size: int) -> dict[str, float]:
        spent.clear()
        start = clock()
        batch = [prepare(model, Job(k, parse(body, config), float("inf")), config) for k in range(size)]
        prepared = clock()
        answer(model, batch, lambda event: None, lambda number: False)
        all_of_it = clock() - start
        parts = {"all": all_of_it, "host": prepared - start, **{k: spent[k] for k in ("tower", "pruner", "decode")}}
        parts["layers"] = 2 * all_of_it - sum(parts.values())  # what is left: the prompt through the decoder
        return {name: 1000 * value / size for name, value in parts.items()}

    found: dict[str, dict[int, dict[str, float]]] = {}
    for method in methods:
        body, found[method] = body_of(method), {}
        for size, repeats in BATCHES.items():
            rows = [once(body, size) for _ in range(repeats + 1)][1:]  # the first one warms up
            found[method][size] = {name: round(median(row[name] for row in rows), 1) for name in rows[0]}
    return found


if __name__ == "__main__":
    given = [one for one in sys.argv[1:] if "=" not in one]
    for name, sizes in profile(given, [one for one in sys.argv[1:] if "=" in one]).items():
        print(name, json.dumps(sizes), flush=True)
