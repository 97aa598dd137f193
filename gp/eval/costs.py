"""Time and memory of each row, on a few batches that are the same for all rows; kept on disk."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gp.data.batch import Batch
from gp.engine.prefill import Prefill
from gp.eval.plan import UNPRUNED, Method
from gp.eval.runner import prefill_batch
from gp.eval.timing import decode_some, time_rows
from gp.measure.peak_memory import MIB, PeakMemory
from gp.model import GlimpseModel
from gp.runs.writing import write_text

NUM_BATCHES = 2
GROUP = 3  # pruned rows that share un-pruned runs; more would be further from them
MEMORY_REPEATS = 2
BATCH_SIZE = 8  # samples, or `data.eval_batch_size` if that is less
FILE = "costs.json"
FILES = "costs*.json"


@dataclass(frozen=True)
class RowCost:
    """Time and memory of one row.

    Args:
        prefill_ratio, decode_ratio: time pruned / un-pruned, see `gp.eval.timing.RowTimes`.
        peak_mib: peak of memory while the larger batch is prefilled and decoded, above what was in use before; None
            where the system cannot tell. On a CPU good to some MiB: the C library decides when pages go back.
        kv_cache_mib: after prefill, padding included, of the batch where it is larger.
        prefill_ms, decode_ms, questions_per_s: times as they were measured, see `gp.eval.timing.RowTimes`.
    """

    prefill_ratio: float | None
    decode_ratio: float | None
    peak_mib: float | None
    kv_cache_mib: float | None
    prefill_ms: float | None = None
    decode_ms: float | None = None
    questions_per_s: float | None = None


NOT_MEASURED = RowCost(None, None, None, None)  # of all rows with `eval.costs=false`


def costs_path(out: Path, rank: int = 0) -> Path:
    """File that a process keeps its figures in."""
    return out / (f"costs.rank{rank}.json" if rank else FILE)


def measure_costs(
    model: GlimpseModel,
    batches: Sequence[Batch],
    methods: Sequence[Method],
    seed: int,
    num_keep: Mapping[str, int],
    path: Path,
    split: str,
    advance: Callable[[Method], None] = lambda method: None,
) -> dict[Method, RowCost]:
    """Measures every row that was not measured yet, and keeps the figures on disk.

    Figures found beside them count if they were taken on the same batches by the same kind of device, decoding the
    same way; earlier versions took fewer, those are measured again.

    Args:
        model: on its device.
        batches: a few, all rows are measured on the same ones.
        methods: the rows.
        seed: of methods that draw.
        num_keep: for matched methods: tokens to keep of each sample, by id.
        path: see `costs_path`.
        split: name of the split.
        advance: called with each row when it is done.
    """
    taken_on: dict[str, Any] = {"batch_sizes": [len(batch) for batch in batches]}
    taken_on |= {"device": model.backbone.device.type, "compile_decode": model.compile_decode}
    complete = {field.name for field in fields(RowCost)} | taken_on.keys()  # earlier versions took less
    names = {f"{split}-{method.label}": method for method in methods}
    costs = {}
    for file in sorted(path.parent.glob(FILES)):
        for label, entry in _read(file).items():
            fits = entry.keys() == complete and all(entry[key] == value for key, value in taken_on.items())
            if label in names and fits:
                costs[names[label]] = RowCost(**{key: value for key, value in entry.items() if key not in taken_on})
    for method in costs:
        advance(method)
    left = [method for method in methods if method not in costs]
    for group in groups(left):
        found = measure(model, batches, group, seed, num_keep)
        entries = {f"{split}-{method.label}": {**asdict(cost), **taken_on} for method, cost in found.items()}
        write_text(path, json.dumps({**_read(path), **entries}, indent=1) + "\n")
        costs |= found
        for method in group:
            advance(method)
    return costs


def groups(methods: Sequence[Method]) -> list[list[Method]]:
    """Rows that are measured together: `GROUP` pruned ones, and the un-pruned row with the first of them."""
    pruned = [method for method in methods if method != UNPRUNED]
    parts = [pruned[start : start + GROUP] for start in range(0, len(pruned), GROUP)] or [[]]
    unpruned = [method for method in methods if method == UNPRUNED]
    return [unpruned + part if number == 0 else part for number, part in enumerate(parts) if unpruned or part]


def measure(
    model: GlimpseModel, batches: Sequence[Batch], methods: Sequence[Method], seed: int, num_keep: Mapping[str, int]
) -> dict[Method, RowCost]:
    """Takes the memory of a few rows, then times them beside un-pruned prompts; arguments as in `measure_costs`."""
    memory = {method: memory_mib(model, batches, method, seed, num_keep) for method in methods}
    times = time_rows(model, batches, [method for method in methods if method != UNPRUNED], seed, num_keep)
    return {
        method: RowCost(**asdict(times[method]), peak_mib=memory[method][0], kv_cache_mib=memory[method][1])
        for method in methods
    }


def memory_mib(
    model: GlimpseModel, batches: Sequence[Batch], method: Method, seed: int, num_keep: Mapping[str, int]
) -> tuple[float | None, float]:
    """Peak above the use before the larger batch; and KV cache after prefill, of the batch where it is largest.

    Mean of the repeats; the first round loads what stays loaded. Apart from the timed runs, because taking the peak
    slows them.
    """
    cache_mib = max(_peak_and_cache_mib(model, batch, method, seed, num_keep)[1] for batch in batches)
    larger = max(batches, key=lambda batch: batch.sent["input_ids"].numel())
    repeats = 1 if model.backbone.device.type == "cuda" else MEMORY_REPEATS  # torch counts what the system estimates
    peaks = [_peak_and_cache_mib(model, larger, method, seed, num_keep)[0] for _ in range(repeats)]
    return None if None in peaks else round(statistics.mean(peaks), 2), round(cache_mib, 4)


def _peak_and_cache_mib(
    model: GlimpseModel, batch: Batch, method: Method, seed: int, num_keep: Mapping[str, int]
) -> tuple[float | None, float]:
    peak = PeakMemory(model.backbone.device)
    done = prefill_batch(model, batch, method, seed, num_keep)
    cache_mib = kv_cache_mib(done)
    decode_some(model, batch, done)
    return peak.above_mib(), cache_mib


def kv_cache_mib(done: Prefill) -> float:
    """Size of all keys and values, padding included."""
    tensors = [tensor for layer in done.cache.layers for tensor in (layer.keys, layer.values)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MIB


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(there, dict) or not all(isinstance(entry, dict) for entry in there.values()):
            raise ValueError("no figures by row")
    except ValueError as error:
        raise ValueError(f"{path}: not the costs of an evaluation ({error}); delete it") from error
    return there
