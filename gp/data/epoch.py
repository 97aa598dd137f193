"""Records of one stream in one epoch, in order: dealt, shuffled, and on wish bucketed by length.

In every epoch the shards are shuffled from the seed and dealt to the streams like cards. Where a manifest tells how
many records each shard has, the hands are laid end to end and cut into equal ranges, one per stream: two streams then
share the shard at their border, each dropping the other's records undecoded. Without it a stream keeps its hand.
A stream's records pass a shuffle buffer and, with bucketing, pools that are cut into batches of similar length.
Everything is a pure function of the seed and the `Span`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from random import Random
from typing import Any, TypeVar

import webdataset as wds

from gp.data.counts import place_of_manifest
from gp.data.position import Span, stream_range
from gp.data.shards import Record, read_records, shard_names

Item = TypeVar("Item")


@dataclass(frozen=True)
class ShardSlice:
    """Records `first` .. `last` - 1 of a shard that has `count`; all of them where the count is not known (None)."""

    shard: str
    name: str
    first: int = 0
    last: int = 0
    count: int | None = None


@dataclass(frozen=True)
class Buckets:
    """Pools of `num_batches` batches of `batch_size` records, sorted by `length` and cut into batches."""

    num_batches: int
    batch_size: int
    length: Callable[[Record], int]

    @property
    def pool_size(self) -> int:
        """Records of a pool."""
        return self.num_batches * self.batch_size

    def order(self, pool: Sequence[Record], rng: Random) -> list[Record]:
        """Batches of similar length in random order, one after the other; a last one that is not full stays last."""
        by_length = sorted(pool, key=self.length)
        batches = [by_length[start : start + self.batch_size] for start in range(0, len(pool), self.batch_size)]
        short = [batches.pop()] if len(pool) % self.batch_size else []
        rng.shuffle(batches)
        return list(chain.from_iterable(batches + short))


class EpochReader:
    """Reads the records of any `Span` of the training data.

    Args:
        shards: paths or urls of the whole training set.
        seed: of the order.
        shuffle_buffer: undecoded records held for shuffling; 1 or less keeps the order of the shards.
        counts: records of each shard; None: not known.
        buckets: None: not bucketed.
    """

    def __init__(
        self,
        shards: Sequence[str],
        seed: int,
        shuffle_buffer: int,
        counts: Sequence[int] | None = None,
        buckets: Buckets | None = None,
    ):
        self.shards = list(shards)
        self.names = shard_names(self.shards)
        self.seed = seed
        self.shuffle_buffer = shuffle_buffer
        self.counts = None if counts is None else list(counts)
        self.buckets = buckets

    def records(self, span: Span) -> Iterator[Record]:
        """Records of one span in their order, not decoded.

        Those before `span.start` are dropped, and shards that hold no others are not even read.

        Raises:
            ValueError: a damaged shard, or one with more or fewer records than its manifest says.
        """
        pool_size = self.buckets.pool_size if self.buckets else 1
        first = span.start // pool_size * pool_size  # a pool is ordered as a whole
        slices = self.slices(span)
        is_done = self._done(slices, span, first)
        files = (_blanks(piece) if done else read_slice(piece) for piece, done in zip(slices, is_done, strict=True))
        records: Iterator[Record] = islice(self._shuffled(chain.from_iterable(files), span), first, None)
        if self.buckets:
            records = self._pooled(records, span, first // pool_size)
        return islice(records, span.start - first, None if span.stop is None else span.stop - first)

    def slices(self, span: Span) -> list[ShardSlice]:
        """Slices that the span's stream reads in the span's epoch, in this order."""
        order = list(range(len(self.shards)))
        Random(f"shards {self.seed} {span.epoch}").shuffle(order)
        hands = [order[hand :: span.num_streams] for hand in range(span.num_streams)]
        if self.counts is None:
            return [ShardSlice(self.shards[shard], self.names[shard]) for shard in hands[span.stream]]
        mine = stream_range(span.stream, span.num_streams, sum(self.counts))
        slices, begin = [], 0
        for shard in chain.from_iterable(hands):
            count = self.counts[shard]
            first, last = max(mine.start - begin, 0), min(mine.stop - begin, count)
            if first < last:
                slices.append(ShardSlice(self.shards[shard], self.names[shard], first, last, count))
            begin += count
        return slices

    def _shuffled(self, items: Iterable[Item], span: Span) -> Iterator[Item]:
        rng = Random(f"records {self.seed} {span.epoch} {span.stream} {span.num_streams}")
        return wds.shuffle(self.shuffle_buffer, rng=rng)(iter(items))

    def _done(self, slices: Sequence[ShardSlice], span: Span, first: int) -> list[bool]:
        """True for slices wholly before record `first` of the shuffled order: shuffles their numbers to see it."""
        if self.counts is None or first == 0:
            return [False] * len(slices)
        owners = chain.from_iterable(repeat(number, piece.last - piece.first) for number, piece in enumerate(slices))
        out = Counter(islice(self._shuffled(owners, span), first))
        return [out[number] == piece.last - piece.first for number, piece in enumerate(slices)]

    def _pooled(self, records: Iterator[Record], span: Span, number: int) -> Iterator[Record]:
        """Pools one after the other, from pool `number` on."""
        while pool := list(islice(records, self.buckets.pool_size)):
            rng = Random(f"pool {self.seed} {span.epoch} {span.stream} {span.num_streams} {number}")
            yield from self.buckets.order(pool, rng)
            number += 1


def _blanks(piece: ShardSlice) -> Iterator[Any]:
    """Stands for records that would only be dropped."""
    return repeat(None, piece.last - piece.first)


def read_slice(piece: ShardSlice) -> Iterator[Record]:
    """Records of a slice; a shard that is read to its end must have as many as its manifest says."""
    seen = 0
    for seen, record in enumerate(read_records(piece.shard, piece.name), start=1):
        if piece.count is None or piece.first < seen <= piece.last:
            yield record
        if piece.count is not None and seen == piece.last < piece.count:
            return
        if piece.count is not None and seen > piece.count:
            break
    if piece.count is not None and seen != piece.count:
        found = f"more, at least {seen}" if seen > piece.count else str(seen)
        place = place_of_manifest(piece.shard)
        raise ValueError(f"shard {piece.shard}: {place} says {piece.count} samples, it has {found}")
