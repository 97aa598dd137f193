"""Time of pruned prompts, and relative to un-pruned ones: the same batches, in turns, in one run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gp.data.batch import Batch
from gp.engine.generation import GREEDY
from gp.engine.prefill import Prefill
from gp.eval.plan import UNPRUNED, Method
from gp.eval.runner import prefill_batch
from gp.measure.spread import Spread
from gp.measure.stopwatch import Stopwatch
from gp.model import GlimpseModel

ROUNDS = 4
ENOUGH_ROUNDS = 2  # where the ratios agree, as on a quiet machine
NARROW = 0.05  # they do if their middle half is within so much of the median
DECODED_TOKENS = 8


@dataclass(frozen=True)
class RowTimes:
    """Times of one row, medians over batches and rounds.

    Args:
        prefill_ratio, decode_ratio: time pruned / time of the un-pruned run shortly before; below 1 is faster. Of the
            whole prefill, vision tower and the method's own work included; and of a generated token.
        prefill_ms: of a batch's prefill.
        decode_ms: of a step that decodes one token of every question of a batch.
        questions_per_s: questions of a batch / time of its prefill and of decoding `DECODED_TOKENS` tokens.
    """

    prefill_ratio: float
    decode_ratio: float
    prefill_ms: float
    decode_ms: float
    questions_per_s: float


def time_rows(
    model: GlimpseModel, batches: Sequence[Batch], methods: Sequence[Method], seed: int, num_keep: Mapping[str, int]
) -> dict[Method, RowTimes]:
    """Times rows and the un-pruned prompts beside them.

    In every round each batch runs un-pruned, then with the methods in turn. Before the first one each batch runs once
    to warm up. A method is done after `ROUNDS` rounds, or as soon as its ratios agree; un-pruned prompts alone are
    after `ENOUGH_ROUNDS`.

    Args:
        model: on its device.
        batches: timed.
        methods: a few rows other than the un-pruned one that have run before, and share its runs.
        seed: of methods that draw.
        num_keep: for matched methods: tokens to keep of each sample, by id.

    Returns:
        Of each row, the un-pruned one first.
    """
    for batch in batches:
        time_batch(model, batch, UNPRUNED, seed, num_keep)  # warms up
    ratios: dict[Method, list[tuple[float, float]]] = {method: [] for method in (UNPRUNED, *methods)}
    seconds: dict[Method, list[tuple[float, float, int]]] = {method: [] for method in ratios}
    for number in range(1, ROUNDS + 1):
        left = [method for method in methods if number <= ENOUGH_ROUNDS or not all(map(agree, zip(*ratios[method])))]
        for batch in batches if left or number <= ENOUGH_ROUNDS else ():
            before_prefill, before_decode = 0.0, 0.0
            for method in (UNPRUNED, *left):
                prefill_s, decode_s = time_batch(model, batch, method, seed, num_keep)
                if method == UNPRUNED:
                    before_prefill, before_decode = prefill_s, decode_s
                ratios[method].append((prefill_s / before_prefill, decode_s / before_decode))
                seconds[method].append((prefill_s, decode_s, len(batch)))
    return {method: _medians(ratios[method], seconds[method]) for method in ratios}


def _medians(ratios: Sequence[tuple[float, float]], seconds: Sequence[tuple[float, float, int]]) -> RowTimes:
    """Figures of one row.

    Args:
        ratios: of each run: prefill and decoding / un-pruned.
        seconds: of each run: prefill, decoding, and questions of the batch.
    """
    prefill_ratio, decode_ratio = (statistics.median(part) for part in zip(*ratios))
    prefill_s, decode_s = (statistics.median(run[part] for run in seconds) for part in (0, 1))
    rate = statistics.median(count / (prefill + decode) for prefill, decode, count in seconds)
    return RowTimes(
        prefill_ratio=round(prefill_ratio, 4),
        decode_ratio=round(decode_ratio, 4),
        prefill_ms=round(1e3 * prefill_s, 3),
        decode_ms=round(1e3 * decode_s / DECODED_TOKENS, 4),
        questions_per_s=round(rate, 3),
    )


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
    model.decode(batch.sent["input_ids"], done, consume=True, **{**GREEDY, **new_tokens})
