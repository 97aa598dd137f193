"""Where the training streams stand, as a few integers: what a checkpoint keeps so that the next sample is the next.

A run has `of` = ranks x workers streams; stream `number` = worker x ranks + rank. What a stream reads in an epoch, and
in which order, depends on (seed, epoch, number, of) only (`gp.data.epoch`). A place in it is therefore a number of
records. Records count, not samples: a bad sample moves nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """What is left of one epoch of one stream: stream `number` among `of`, from record `start` on.

    `stop` is the record before which another stream goes on; None: none does.
    """

    epoch: int
    number: int
    of: int
    start: int = 0
    stop: int | None = None


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


def stream_range(number: int, of: int, total: int) -> range:
    """Stream `number`'s records of an epoch of `total` laid end to end: as many as every other stream's.

    What is left over at the end, fewer records than streams, is not read in this epoch.
    """
    size = total // of
    return range(number * size, (number + 1) * size)


def fit_workers(num_shards: int, num_samples: int | None, world: int, num_workers: int) -> int:
    """Workers a rank, reduced (and logged) until every training stream has something to read.

    Args:
        num_shards: of the training set.
        num_samples: likewise; where it is known, streams share shards and need one sample each, otherwise one shard.
        world: number of ranks.
        num_workers: asked for; 0 reads in the training process.

    Raises:
        ValueError: too little for the ranks.
    """
    limit, unit = (num_shards, "shards") if num_samples is None else (num_samples, "samples")
    if limit < world:
        raise ValueError(
            f"data.train names {limit} {unit} for {world} devices: each device needs at least one of its own; "
            + ("cut the data into more shards, build a manifest or " if num_samples is None else "")
            + "set trainer.devices lower"
        )
    fitting = min(num_workers, limit // world)
    if fitting < num_workers:
        given = (num_workers, fitting, limit, unit, world)
        log.warning("data.num_workers reduced from %d to %d: %d training %s for %d devices", *given)
    return fitting


def first_plans(rank: int, world: int, workers: int) -> list[Plan]:
    """What the workers of a rank read from the very beginning."""
    return resumed_plans([(Part(0, number, world * workers),) for number in range(world * workers)], rank, world)


def resumed_plans(streams: Sequence[Parts], rank: int, world: int) -> list[Plan]:
    """What the workers of a rank read, given the parts in hand of all streams of all ranks, by number."""
    return [Plan(number, len(streams), streams[number]) for number in range(rank, len(streams), world)]


def deal_again(streams: Sequence[Parts], of: int, total: int | None = None) -> list[Parts]:
    """Spreads what a run left over another number of streams: each remaining record once.

    Streams may stand in different epochs: all are brought to the end of the latest one, whose followers are dealt to
    the new streams as usual.

    Args:
        streams: the parts in hand of all old streams of all ranks, by number.
        of: number of new streams.
        total: records of an epoch; None: not known.

    Returns:
        The parts in hand of the new streams, by number. With `total` they have equally many records left of each epoch,
        up to one; without it whole parts are dealt.
    """
    last = max(parts[-1].epoch for parts in streams)
    left: list[Part] = []
    for number, parts in enumerate(streams):
        followers = range(parts[-1].epoch + 1, last + 1)
        left += [*parts, *(Part(epoch, number, len(streams)) for epoch in followers)]
    if any(part.epoch < last for part in left) and all(_is_whole(part) for part in left if part.epoch == last):
        last -= 1  # nobody has begun it: it is dealt as usual, too
    pieces: list[list[Part]] = [[] for _ in range(of)]
    for epoch in sorted({part.epoch for part in left if part.epoch <= last}):
        parts = sorted((p for p in left if p.epoch == epoch), key=lambda p: (p.of, p.number, p.start))
        hands = [parts[number::of] for number in range(of)] if total is None else _cut(parts, of, total)
        pieces = [[*piece, *hand] for piece, hand in zip(pieces, hands, strict=True)]
    return [(*piece, Part(last + 1, number, of)) for number, piece in enumerate(pieces)]


def _is_whole(part: Part) -> bool:
    return part.start == 0 and part.stop is None


def to_lists(streams: Sequence[Parts]) -> list[list[list[int]]]:
    """Plain lists, as a checkpoint that loads with `weights_only=True` needs them."""
    return [[list(astuple(part)) for part in parts] for parts in streams]


def from_lists(streams: Sequence[Sequence[Sequence[int]]]) -> list[Parts]:
    """The inverse of `to_lists`."""
    return [tuple(Part(*values) for values in parts) for parts in streams]


def _cut(parts: Sequence[Part], of: int, total: int) -> list[list[Part]]:
    """Parts laid end to end, cut into `of` pieces that differ by one record at most."""
    bounds = [(part, part.start, total // part.of if part.stop is None else part.stop) for part in parts]
    length = sum(stop - start for _, start, stop in bounds)
    cuts = [length * number // of for number in range(of + 1)]
    pieces: list[list[Part]] = [[] for _ in range(of)]
    begin = 0  # of the part at hand, among all records that are left
    for part, start, stop in bounds:
        for piece, low, high in zip(pieces, cuts, cuts[1:]):
            first, after = max(low, begin), min(high, begin + stop - start)
            if first < after:
                piece.append(replace(part, start=start + first - begin, stop=start + after - begin))
        begin += stop - start
    return pieces
