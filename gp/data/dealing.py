"""Samples of a split, and who reads them: a seeded draw over all shards, in batches that are dealt as ranges."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from random import Random

from gp.data.epoch import ShardSlice, read_slice
from gp.data.shards import Record

Numbers = Sequence[int]  # positions in a split, from 0, ascending


def drawn(counts: Sequence[int], num_samples: int | None) -> Numbers:
    """Positions of the samples that stand for a split: the same for every run, so that runs answer the same questions.

    Each shard gives its share, and a larger draw has all of a smaller one.

    Args:
        counts: samples of each shard.
        num_samples: how many are drawn; None: all.
    """
    total = sum(counts)
    if num_samples is None or num_samples >= total:
        return range(total)
    places, begin = [], 0
    for shard, count in enumerate(counts):
        rng = Random(f"draw {shard}")
        shuffled, start = rng.sample(range(count), count), rng.random()
        places += [((start + turn) / count, begin + position) for turn, position in enumerate(shuffled)]
        begin += count
    return sorted(position for _, position in sorted(places)[:num_samples])


def batches_left(wanted: Numbers, batch_size: int, done: Collection[int]) -> list[Numbers]:
    """Batches that are not wholly done. They are cut before: which samples share one depends on nothing else."""
    batches = (wanted[start : start + batch_size] for start in range(0, len(wanted), batch_size))
    return [batch for batch in batches if not all(number in done for number in batch)]


def part(batches: Sequence[Numbers], index: int, count: int) -> Sequence[Numbers]:
    """Range number `index` of `count` equal ones."""
    return batches[index * len(batches) // count : (index + 1) * len(batches) // count]


def read_numbers(
    shards: Sequence[str], names: Sequence[str], counts: Sequence[int], wanted: Numbers
) -> Iterator[tuple[int, Record]]:
    """Yields positions and records, not decoded; shards without any are not opened."""
    begin = 0
    for shard, name, count in zip(shards, names, counts, strict=True):
        here = wanted[bisect_left(wanted, begin) : bisect_left(wanted, begin + count)]
        if here:
            chosen, last = frozenset(here), here[-1] - begin + 1
            records = read_slice(ShardSlice(shard, name, here[0] - begin, last, count))
            yield from (item for item in enumerate(records, here[0]) if item[0] in chosen)
        begin += count
