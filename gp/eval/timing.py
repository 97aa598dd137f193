"""Time of pruned prompts relative to un-pruned ones: the same batches, in turns, in one run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from gp.data.batch import Batch
from gp.engine.generation import GREEDY
from gp.engine.prefill import Prefill
from gp.eval.plan import UNPRUNED, Method
from gp.eval.runner import prefill_batch
from gp.measure.spread import Spread
from gp.measure.stopwatch import Stopwatch
from gp.model import GlimpseModel

ROUNDS = 5
ENOUGH_ROUNDS = 2  # where the ratios agree, as on a quiet machine
NARROW = 0.05  # they do if their middle half is within so much of the median
DECODED_TOKENS = 8


def time_ratios(
    model: GlimpseModel, batches: Sequence[Batch], methods: Sequence[Method], seed: int, num_keep: Mapping[str, int]
) -> dict[Method, tuple[float, float]]:
    """Median over batches and rounds of time pruned / time of the un-pruned run shortly before; below 1 is faster.

    In every round each batch runs un-pruned, then with the methods in turn. A method is done after `ROUNDS` rounds, or
    as soon as its ratios agree.

    Args:
        model: on its device.
        batches: timed.
        methods: a few rows that have run before, which share the un-pruned runs.
        seed: of methods that draw.
        num_keep: for matched methods: tokens to keep of each sample, by id.

    Returns:
        Of each row the ratio of the whole prefill, vision tower and the method's own work included; and of each
        generated token, at a forced number of them.
    """
    for batch in batches:
        time_batch(model, batch, UNPRUNED, seed, num_keep)  # warms up
    ratios: dict[Method, list[tuple[float, float]]] = {method: [] for method in methods}
    for number in range(1, ROUNDS + 1):
        left = [method for method in methods if number <= ENOUGH_ROUNDS or not all(map(agree, zip(*ratios[method])))]
        for batch in batches if left else ():
            before_prefill, before_decode = time_batch(model, batch, UNPRUNED, seed, num_keep)
            for method in left:
                prefill_s, decode_s = time_batch(model, batch, method, seed, num_keep)
                ratios[method].append((prefill_s / before_prefill, decode_s / before_decode))
    return {
        method: (round(statistics.median(prefill), 4), round(statistics.median(decode), 4))
        for method, (prefill, decode) in ((method, zip(*pairs)) for method, pairs in ratios.items())
    }


def agree(ratios: Sequence[float]) -> bool:
    """Whether the middle half of repeated figures is narrow, see `NARROW`."""
    spread = Spread.from_values(ratios)
    return spread.high - spread.low <= NARROW * spread.median


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
    model.decode(batch.inputs["input_ids"], done, consume=True, **{**GREEDY, **new_tokens})
