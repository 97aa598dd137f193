"""Time of pruned prompts relative to un-pruned ones: the same batches, in turns, in one run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gp.data.batch import Batch
from gp.eval.plan import UNPRUNED, Method
from gp.eval.runner import GREEDY, prefill_batch
from gp.eval.stopwatch import Stopwatch
from gp.model import GlimpseModel

NUM_BATCHES = 2
TIMED_BATCH_SIZE = 8  # samples, or `data.eval_batch_size` if that is less
REPEATS = 5
DECODED_TOKENS = 8
FILE = "timing.json"


@dataclass(frozen=True)
class Timing:
    """Median over batches and repeats of time pruned / time of the un-pruned run right before it; below 1 is faster.

    Args:
        prefill_ratio: of the whole prefill, vision tower and the method's own work included.
        decode_ratio: per generated token, at a forced number of them.
    """

    prefill_ratio: float
    decode_ratio: float


def time_methods(
    model: GlimpseModel,
    batches: Sequence[Batch],
    methods: Sequence[Method],
    seed: int,
    num_keep: Mapping[str, int],
    out: Path,
    split: str,
) -> dict[Method, Timing]:
    """Times every row that was not timed yet, and keeps the figures in `out/timing.json`.

    Figures found there count if they were taken on the same batches by the same kind of device.

    Args:
        model: on its device.
        batches: a few, all rows are timed on the same ones.
        methods: the rows.
        seed: of methods that draw.
        num_keep: for matched methods: tokens to keep of each sample, by id.
        out: folder of the evaluation.
        split: name of the split.
    """
    path = out / FILE
    there: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    taken_on = {"batch_sizes": [len(batch) for batch in batches], "device": model.backbone.device.type}
    timings = {UNPRUNED: Timing(1.0, 1.0)}
    for method in methods:
        if method == UNPRUNED:
            continue
        label = f"{split}-{method.label}"
        entry = there.get(label, {})
        if any(entry.get(key) != value for key, value in taken_on.items()):
            entry = {**asdict(compare(model, batches, method, seed, num_keep)), **taken_on}
            there[label] = entry
            path.write_text(json.dumps(there, indent=1) + "\n", encoding="utf-8")
        timings[method] = Timing(entry["prefill_ratio"], entry["decode_ratio"])
    return timings


def compare(
    model: GlimpseModel, batches: Sequence[Batch], method: Method, seed: int, num_keep: Mapping[str, int]
) -> Timing:
    """Times un-pruned and pruned prompts in turns, after a round that warms up; arguments as in `time_methods`."""
    prefill_ratios, decode_ratios = [], []
    for repeat in range(REPEATS + 1):
        for batch in batches:
            before_prefill, before_decode = time_batch(model, batch, UNPRUNED, seed, num_keep)
            prefill_s, decode_s = time_batch(model, batch, method, seed, num_keep)
            if repeat:
                prefill_ratios.append(prefill_s / before_prefill)
                decode_ratios.append(decode_s / before_decode)
    return Timing(round(statistics.median(prefill_ratios), 4), round(statistics.median(decode_ratios), 4))


def time_batch(
    model: GlimpseModel, batch: Batch, method: Method, seed: int, num_keep: Mapping[str, int]
) -> tuple[float, float]:
    """Seconds of the prefill of a batch, and of decoding `DECODED_TOKENS` tokens behind it."""
    watch = Stopwatch(model.backbone.device)
    done = prefill_batch(model, batch, method, seed, num_keep)
    prefill_s = watch.lap()
    new_tokens = {"min_new_tokens": DECODED_TOKENS, "max_new_tokens": DECODED_TOKENS}
    model.decode(batch.inputs["input_ids"], done, **new_tokens, **GREEDY)
    return prefill_s, watch.lap()
