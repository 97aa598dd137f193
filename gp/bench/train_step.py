"""One training step, two ways: a prefix without gradients, and the whole sequence under autograd.

Both give the same loss and the same gradients (tested). Time: forward and backward of the two ways in turn (A B A B
...) in one process, after a warm-up of each; median, quartiles, and the median of the pairwise ratios. Memory: each
way in a process of its own, which notes its peak before and after its steps; what is reported is the difference, so
weights, libraries and batch are left out. The peak is the resident set's high-water mark, which the kernel keeps and
which is reset (Linux) once the model is built; on a GPU it is what torch allocated.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from gp.bench.random_model import Size, random_batch, random_model
from gp.bench.whole_sequence import whole_sequence
from gp.config import LossConfig
from gp.model import GlimpseModel
from gp.teacher_forcing import teacher_forced
from gp.training.objective import batch_sums, kept_counts, step_loss

WAYS: dict[str, Callable] = {"prefix": teacher_forced, "whole": whole_sequence}
DTYPES = ("float32", "bfloat16", "float16")
SIZE_HELP = {
    "layers": "decoder layers",
    "hidden": "hidden size of the decoder",
    "visual": "visual tokens of each image (a square number)",
    "text": "other tokens of a prompt",
    "answer": "answer tokens",
    "batch": "samples a step",
    "vision_layers": "layers of the vision tower",
    "vision_hidden": "hidden size of the vision tower",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for field in fields(Size):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=field.default, help=f"{SIZE_HELP[field.name]} ({field.default})")
    parser.add_argument("--steps", type=int, default=7, help="measured steps of each way (7)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (cpu)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the frozen model (float32)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)  # a process that measures one way


def run(options: argparse.Namespace) -> int:
    """Prints a table and one line of JSON."""
    try:
        size = Size(**{field.name: getattr(options, field.name) for field in fields(Size)})
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    dtype = getattr(torch, options.dtype)
    if options.memory_of:
        print(json.dumps(measure_memory_mib(size, options.memory_of, options.device, dtype)))
        return 0
    print(f"timing {options.steps} steps of each way ...", file=sys.stderr)
    seconds = measure_time_s(size, options.steps, options.device, dtype)
    print("measuring memory, each way in a process of its own ...", file=sys.stderr)
    memory_mib = {way: _memory_of_process(way, options) for way in WAYS}
    figures = summarize(size, seconds, memory_mib)
    figures.update(device=options.device, dtype=options.dtype, threads=torch.get_num_threads(), torch=torch.__version__)
    print_table(figures)
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def step(model: GlimpseModel, batch: dict[str, Any], way: str) -> None:
    """Forward and backward of one training step; gradients are dropped."""
    answers = (batch["answer_ids"], batch["answer_mask"])
    forced = WAYS[way](model.backbone, model.glimpse, batch["inputs"], *answers)
    sums = batch_sums(forced, batch["evidence_masks"], *answers, kept_counts(forced, model.options))
    step_loss(sums, LossConfig())[0].backward.backward()
    model.zero_grad()


def measure_time_s(size: Size, steps: int, device: str, dtype: torch.dtype) -> dict[str, list[float]]:
    """Seconds of every measured step of each way, interleaved."""
    model, batch = random_model(size, device, dtype).train(), random_batch(size, device)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(-2, steps):  # two rounds of warm-up
        for way in WAYS:
            _synchronize(device)
            start_s = time.perf_counter()
            step(model, batch, way)
            _synchronize(device)
            if number >= 0:
                seconds[way].append(time.perf_counter() - start_s)
    return seconds


def measure_memory_mib(size: Size, way: str, device: str, dtype: torch.dtype) -> float:
    """Peak memory of two steps above what model, batch and libraries take; to be run in a fresh process."""
    small = random_batch(Size(**{**asdict(size), "visual": 4, "text": 4, "answer": 1, "batch": 1}), device)
    model, batch = random_model(size, device, dtype).train(), random_batch(size, device)
    step(model, small, way)  # kernels and libraries are loaded now
    gc.collect()
    reset_peak(device)
    before = peak_mib(device)
    for _ in range(2):
        step(model, batch, way)
    return peak_mib(device) - before


def reset_peak(device: str) -> None:
    """Makes the present use the peak so far, where the system can."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib(device: str) -> float:
    """Peak since `reset_peak`, MiB."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # getrusage has the same mark, but never forgets the one from before a reset
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def summarize(size: Size, seconds: dict[str, list[float]], memory_mib: dict[str, float]) -> dict[str, Any]:
    """Medians, spreads and ratios; a ratio above 1 says how many times more the whole sequence takes."""
    pairwise = [whole / prefix for prefix, whole in zip(seconds["prefix"], seconds["whole"])]
    return {
        "size": asdict(size),
        "step_s": {way: statistics.median(values) for way, values in seconds.items()},
        "step_s_quartiles": {way: _quartiles(values) for way, values in seconds.items()},
        "step_ratio": statistics.median(pairwise),
        "step_ratio_quartiles": _quartiles(pairwise),
        "peak_mib": memory_mib,
        "peak_ratio": memory_mib["whole"] / memory_mib["prefix"],
    }


def print_table(figures: dict[str, Any]) -> None:
    size = figures["size"]
    tokens = f"{size['visual']} visual + {size['text']} text + {size['answer']} answer tokens"
    title = f"{size['layers']} layers of {size['hidden']}, {size['batch']} x ({tokens})"
    title = f"{title}, {figures['device']}, {figures['dtype']}"
    table = Table("way", "step, s", "quartiles", "peak above the model, MiB", title=title)
    for way, label in (("prefix", "prefix without gradients"), ("whole", "whole sequence under autograd")):
        low, high = figures["step_s_quartiles"][way]
        median, peak = figures["step_s"][way], figures["peak_mib"][way]
        table.add_row(label, f"{median:.3f}", f"{low:.3f} .. {high:.3f}", f"{peak:.0f}")
    low, high = figures["step_ratio_quartiles"]
    ratio, peak_ratio = figures["step_ratio"], figures["peak_ratio"]
    table.add_row("whole / prefix", f"{ratio:.2f} x", f"{low:.2f} .. {high:.2f} x", f"{peak_ratio:.2f} x")
    Console(width=110).print(table)


def _memory_of_process(way: str, options: argparse.Namespace) -> float:
    sizes = [part for f in fields(Size) for part in (f"--{f.name.replace('_', '-')}", str(getattr(options, f.name)))]
    command = [sys.executable, "-m", "gp.bench", "train", *sizes, "--device", options.device, "--dtype", options.dtype]
    done = subprocess.run([*command, "--memory-of", way], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _quartiles(values: list[float]) -> list[float]:
    if len(values) < 2:
        return [values[0], values[0]]
    low, _, high = statistics.quantiles(values, n=4)
    return [low, high]


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
