"""The order of the records of one stream in one epoch: dealt, shuffled, and on wish bucketed by length.

In every epoch the shards are shuffled from the seed and dealt to the streams like cards. Where a manifest tells how
many records each shard has, the hands are laid end to end and cut into equal ranges, one a stream: two streams then
share the shard at their border, each dropping the other's records undecoded. Without it a stream keeps its hand.
A stream's records pass a shuffle buffer and, with bucketing, pools that are cut into batches of similar length.
Everything is a pure function of the seed and the `Part`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from random import Random
from typing import TypeVar

import webdataset as wds

from gp.data.counts import place_of_manifest
from gp.data.cursor import Part, stream_range
from gp.data.shards import Record, read_records, shard_names

Item = TypeVar("Item")


@dataclass(frozen=True)
class Slice:
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


class EpochOrder:
    """Reads the records of any `Part` of the training data.

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

    def records(self, part: Part) -> Iterator[Record]:
        """The records of one part in their order, not decoded.

        Those before `part.start` are dropped, and shards that hold no others are not even read.

        Raises:
            ValueError: a damaged shard, or one with more or fewer records than its manifest says.
        """
        pool_size = self.buckets.pool_size if self.buckets else 1
        first = part.start // pool_size * pool_size  # a pool is ordered as a whole
        slices = self.slices(part)
        is_done = self._done(slices, part, first)
        files = (_blanks(piece) if done else _read(piece) for piece, done in zip(slices, is_done, strict=True))
        records = islice(self._shuffled(chain.from_iterable(files), part), first, None)
        if self.buckets:
            records = self._pooled(records, part, first // pool_size)
        return islice(records, part.start - first, None if part.stop is None else part.stop - first)

    def slices(self, part: Part) -> list[Slice]:
        """What the part's stream reads in the part's epoch, in this order."""
        order = list(range(len(self.shards)))
        Random(f"shards {self.seed} {part.epoch}").shuffle(order)
        if self.counts is None:
            return [Slice(self.shards[shard], self.names[shard]) for shard in order[part.number :: part.of]]
        laid_out = [shard for hand in range(part.of) for shard in order[hand :: part.of]]
        mine = stream_range(part.number, part.of, sum(self.counts))
        slices, begin = [], 0
        for shard in laid_out:
            count = self.counts[shard]
            first, last = max(mine.start - begin, 0), min(mine.stop - begin, count)
            if first < last:
                slices.append(Slice(self.shards[shard], self.names[shard], first, last, count))
            begin += count
        return slices

    def _shuffled(self, items: Iterable[Item], part: Part) -> Iterator[Item]:
        rng = Random(f"records {self.seed} {part.epoch} {part.number} {part.of}")
        return wds.shuffle(self.shuffle_buffer, rng=rng)(iter(items))

    def _done(self, slices: Sequence[Slice], part: Part, first: int) -> list[bool]:
        """Which slices lie wholly before record `first` of the shuffled order: shuffles their numbers to see it."""
        if self.counts is None or first == 0:
            return [False] * len(slices)
        owners = chain.from_iterable(repeat(number, piece.last - piece.first) for number, piece in enumerate(slices))
        out = Counter(islice(self._shuffled(owners, part), first))
        return [out[number] == piece.last - piece.first for number, piece in enumerate(slices)]

    def _pooled(self, records: Iterator[Record], part: Part, number: int) -> Iterator[Record]:
        """Pools one after the other, from pool `number` on."""
        while pool := list(islice(records, self.buckets.pool_size)):
            rng = Random(f"pool {self.seed} {part.epoch} {part.number} {part.of} {number}")
            yield from self.buckets.order(pool, rng)
            number += 1


def _blanks(piece: Slice) -> Iterator[None]:
    """Stands for records that would only be dropped."""
    return repeat(None, piece.last - piece.first)


def _read(piece: Slice) -> Iterator[Record]:
    """The records of a slice; a shard that is read to its end must have as many as its manifest says."""
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
