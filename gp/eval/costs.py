"""Time and memory of each row, on a few batches that are the same for all rows; kept on disk."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gp.data.batch import Batch
from gp.engine.prefill import Prefill
from gp.eval.plan import UNPRUNED, Method
from gp.eval.runner import prefill_batch
from gp.eval.timing import decode_some, time_ratios
from gp.measure.peak_memory import MIB, PeakMemory
from gp.model import GlimpseModel

NUM_BATCHES = 2
MEMORY_REPEATS = 3
BATCH_SIZE = 8  # samples, or `data.eval_batch_size` if that is less
FILE = "costs.json"


@dataclass(frozen=True)
class RowCost:
    """Time and memory of one row.

    Args:
        prefill_ratio, decode_ratio: time pruned / un-pruned, see `gp.eval.timing.time_ratios`.
        peak_mib: peak of memory while the larger batch is prefilled and decoded, above what was in use before; None
            where the system cannot tell. On a CPU good to some MiB: the C library decides when pages go back.
        kv_cache_mib: of the larger batch after prefill, padding included.
    """

    prefill_ratio: float | None
    decode_ratio: float | None
    peak_mib: float | None
    kv_cache_mib: float | None


NOT_MEASURED = RowCost(None, None, None, None)  # of all rows with `eval.costs=false`


def measure_costs(
    model: GlimpseModel,
    batches: Sequence[Batch],
    methods: Sequence[Method],
    seed: int,
    num_keep: Mapping[str, int],
    out: Path,
    split: str,
    advance: Callable[[Method], None] = lambda method: None,
) -> dict[Method, RowCost]:
    """Measures every row that was not measured yet, and keeps the figures in `out/costs.json`.

    Figures found there count if they were taken on the same batches by the same kind of device.

    Args:
        model: on its device.
        batches: a few, all rows are measured on the same ones.
        methods: the rows.
        seed: of methods that draw.
        num_keep: for matched methods: tokens to keep of each sample, by id.
        out: folder of the evaluation.
        split: name of the split.
        advance: called with each row when it is done.
    """
    path = out / FILE
    there: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    taken_on = {"batch_sizes": [len(batch) for batch in batches], "device": model.backbone.device.type}
    costs = {}
    for method in methods:
        label = f"{split}-{method.label}"
        entry = there.get(label, {})
        if any(entry.get(key) != value for key, value in taken_on.items()):
            entry = {**asdict(measure(model, batches, method, seed, num_keep)), **taken_on}
            there[label] = entry
            path.write_text(json.dumps(there, indent=1) + "\n", encoding="utf-8")
        costs[method] = RowCost(**{key: value for key, value in entry.items() if key not in taken_on})
        advance(method)
    return costs


def measure(
    model: GlimpseModel, batches: Sequence[Batch], method: Method, seed: int, num_keep: Mapping[str, int]
) -> RowCost:
    """Times a row against un-pruned prompts, then takes its memory; arguments as in `measure_costs`."""
    ratios = (1.0, 1.0) if method == UNPRUNED else time_ratios(model, batches, method, seed, num_keep)
    return RowCost(*ratios, *memory_mib(model, batches, method, seed, num_keep))


def memory_mib(
    model: GlimpseModel, batches: Sequence[Batch], method: Method, seed: int, num_keep: Mapping[str, int]
) -> tuple[float | None, float]:
    """Peak above the use before a batch, and KV cache after its prefill, each of the batch where it is largest.

    Median over repeats; the first round loads what stays loaded. Apart from the timed runs, because taking the peak
    slows them.
    """
    largest, cache_mib = [], 0.0
    for _ in range(MEMORY_REPEATS + 1):
        peaks = []
        for batch in batches:
            peak = PeakMemory(model.backbone.device)
            done = prefill_batch(model, batch, method, seed, num_keep)
            cache_mib = max(cache_mib, kv_cache_mib(done))
            decode_some(model, batch, done)
            peaks.append(peak.above_mib())
            del done  # it would count as in use before the next batch
        largest.append(None if None in peaks else max(peaks))
    counted = largest[1:]
    return None if None in counted else round(statistics.median(counted), 2), round(cache_mib, 4)


def kv_cache_mib(done: Prefill) -> float:
    """Size of all keys and values, padding included."""
    tensors = [tensor for layer in done.cache.layers for tensor in (layer.keys, layer.values)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MIB
