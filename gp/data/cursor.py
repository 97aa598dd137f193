"""Where the training streams stand, as a few integers: what a checkpoint keeps so that the next sample is the next.

A run has `of` = ranks x workers streams; stream `number` = worker x ranks + rank. In every epoch stream `number`
reads every `of`-th shard of a permutation of them all, in an order that depends on (seed, epoch, number, of) only. A
place in it is therefore a number of records. Records count, not samples: a bad sample moves nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """What is left of one epoch of one stream: stream `number` among `of`, from record `start` on."""

    epoch: int
    number: int
    of: int
    start: int = 0


Parts = tuple[Part, ...]


@dataclass(frozen=True)
class Plan:
    """What one stream reads: the parts in hand, then all epochs after the last of them as stream `number` of `of`."""

    number: int
    of: int
    parts: Parts

    def walk(self) -> Iterator[Parts]:
        """The parts still to read, the current one first, one step a part; endless."""
        parts = self.parts
        while True:
            yield parts
            parts = parts[1:] or (Part(parts[0].epoch + 1, self.number, self.of),)


@dataclass(frozen=True)
class Cursor:
    """Where a worker's stream goes on after a batch."""

    worker: int
    parts: Parts


def fit_workers(num_shards: int, world: int, num_workers: int) -> int:
    """Workers a rank, reduced (and logged) until every training stream has a shard of its own.

    Args:
        num_shards: of the training set.
        world: number of ranks.
        num_workers: asked for; 0 reads in the training process.

    Raises:
        ValueError: fewer shards than ranks.
    """
    if num_shards < world:
        raise ValueError(
            f"data.train names {num_shards} shards for {world} devices: each device needs at least one of its own; "
            "cut the data into more shards or set trainer.devices lower"
        )
    fitting = min(num_workers, num_shards // world)
    if fitting < num_workers:
        given = (num_workers, fitting, num_shards, world)
        log.warning("data.num_workers reduced from %d to %d: %d training shards for %d devices", *given)
    return fitting


def first_plans(rank: int, world: int, workers: int) -> list[Plan]:
    """What the workers of a rank read from the very beginning."""
    return resumed_plans([(Part(0, number, world * workers),) for number in range(world * workers)], rank, world)


def resumed_plans(streams: Sequence[Parts], rank: int, world: int) -> list[Plan]:
    """What the workers of a rank read, given the parts in hand of all streams of all ranks, by number."""
    return [Plan(number, len(streams), streams[number]) for number in range(rank, len(streams), world)]


def deal_again(streams: Sequence[Parts], of: int) -> list[Parts]:
    """Spreads what a run left over another number of streams: each remaining record once.

    Streams may stand in different epochs: all are brought to the end of the latest one, whose followers are dealt to
    the new streams as usual.

    Args:
        streams: the parts in hand of all old streams of all ranks, by number.
        of: number of new streams.

    Returns:
        The parts in hand of the new streams, by number.
    """
    last = max(parts[-1].epoch for parts in streams)
    left: list[Part] = []
    for number, parts in enumerate(streams):
        followers = range(parts[-1].epoch + 1, last + 1)
        left += [*parts, *(Part(epoch, number, len(streams)) for epoch in followers)]
    left.sort(key=lambda part: (part.epoch, part.of, part.number))
    return [(*left[number::of], Part(last + 1, number, of)) for number in range(of)]


def to_lists(streams: Sequence[Parts]) -> list[list[list[int]]]:
    """Plain lists, as a checkpoint that loads with `weights_only=True` needs them."""
    return [[list(astuple(part)) for part in parts] for parts in streams]


def from_lists(streams: Sequence[Sequence[Sequence[int]]]) -> list[Parts]:
    """The inverse of `to_lists`."""
    return [tuple(Part(*values) for values in parts) for parts in streams]
