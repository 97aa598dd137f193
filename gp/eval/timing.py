"""Time of pruned prompts relative to un-pruned ones: the same batches, in turns, in one run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from gp.data.batch import Batch
from gp.engine.generation import GREEDY
from gp.engine.prefill import Prefill
from gp.eval.plan import UNPRUNED, Method
from gp.eval.runner import prefill_batch
from gp.measure.stopwatch import Stopwatch
from gp.model import GlimpseModel

REPEATS = 5
DECODED_TOKENS = 8


def time_ratios(
    model: GlimpseModel, batches: Sequence[Batch], method: Method, seed: int, num_keep: Mapping[str, int]
) -> tuple[float, float]:
    """Median over batches and repeats of time pruned / time of the un-pruned run right before it; below 1 is faster.

    The first round warms up.

    Args:
        model: on its device.
        batches: timed.
        method: the row.
        seed: of methods that draw.
        num_keep: for a matched method: tokens to keep of each sample, by id.

    Returns:
        Ratio of the whole prefill, vision tower and the method's own work included; and of each generated token, at a
        forced number of them.
    """
    prefill_ratios, decode_ratios = [], []
    for repeat in range(REPEATS + 1):
        for batch in batches:
            before_prefill, before_decode = time_batch(model, batch, UNPRUNED, seed, num_keep)
            prefill_s, decode_s = time_batch(model, batch, method, seed, num_keep)
            if repeat:
                prefill_ratios.append(prefill_s / before_prefill)
                decode_ratios.append(decode_s / before_decode)
    return round(statistics.median(prefill_ratios), 4), round(statistics.median(decode_ratios), 4)


def time_batch(
    model: GlimpseModel, batch: Batch, method: Method, seed: int, num_keep: Mapping[str, int]
) -> tuple[float, float]:
    """Seconds of the prefill of a batch, and of decoding `DECODED_TOKENS` tokens behind it."""
    watch = Stopwatch(model.backbone.device)
    done = prefill_batch(model, batch, method, seed, num_keep)
    prefill_s = watch.lap()
    decode_some(model, batch, done)
    return prefill_s, watch.lap()


def decode_some(model: GlimpseModel, batch: Batch, done: Prefill) -> None:
    """Decodes exactly `DECODED_TOKENS` tokens; the prefill is used up."""
    new_tokens = {"min_new_tokens": DECODED_TOKENS, "max_new_tokens": DECODED_TOKENS}
    model.decode(batch.inputs["input_ids"], done, consume=True, **new_tokens, **GREEDY)
