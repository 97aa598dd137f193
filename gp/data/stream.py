"""Streams of samples: an endless shuffled one for training and a finite ordered one for evaluation.

Who reads what follows from the rank and the number of ranks that the caller names and from the worker that torch
reports, never from environment variables: these differ between launchers and are lost in spawned workers.

Training deals ranges of shards (`gp.data.epoch`), evaluation ranges of batches (`gp.data.dealing`): a rank reads only
its own shards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from gp.data.dealing import batches_left, drawn, part, read_numbers
from gp.data.epoch import EpochReader
from gp.data.position import Position, Span
from gp.data.sample import BadSample, Sample, parse_record
from gp.data.shards import Record, read_records, shard_names
from gp.data.skipping import SkipCounter


@dataclass
class RawBatch:
    """Samples of one batch before the collator makes tensors of them.

    Args:
        samples: decoded; may be none in evaluation.
        position: in training, of the stream after them.
        skipped: in evaluation, the bad samples among them.
        split_size: in evaluation, after the last batch: the number of samples of the whole split.
    """

    samples: list[Sample] = field(default_factory=list)
    position: Position | None = None
    skipped: list[BadSample] = field(default_factory=list)
    split_size: int | None = None


Maker = Callable[[list[Sample]], tuple[Any, list[BadSample]]]


def as_raw_batch(samples: list[Sample]) -> tuple[RawBatch, list[BadSample]]:
    """All samples, as they are."""
    return RawBatch(samples), []


class TrainStream(IterableDataset):
    """Endless batches for one rank, from one stream per worker.

    Each batch has `batch_size` samples, the last of one epoch together with the first of the next: where a sample turns
    out to be bad, also as late as in `make`, the next one takes its place. With bucketing a batch has fewer then, and
    at the end of an epoch of its stream: it must not mix lengths.

    Args:
        reader: of the records.
        positions: where each worker's stream begins.
        make: samples -> what is yielded, None if none of them can be used, and an error for each that cannot; what is
            yielded gets the `position` of the stream behind it.
        batch_size: samples per batch.
        max_skipped_fraction: see `SkipCounter`.
        first_worker: whose batch comes first, when resuming in the middle of a round of the workers.

    Raises:
        ValueError: while iterating, if a shard is truncated or is not what its manifest says, too many samples are
            bad, or a stream has none at all.
    """

    def __init__(
        self,
        reader: EpochReader,
        positions: Sequence[Position],
        make: Maker = as_raw_batch,
        *,
        batch_size: int,
        max_skipped_fraction: float,
        first_worker: int = 0,
    ):
        self.reader = reader
        self.positions = list(positions)
        self.make = make
        self.batch_size = batch_size
        self.max_skipped_fraction = max_skipped_fraction
        self.first_worker = first_worker

    def __iter__(self) -> Iterator[Any]:
        # torch takes batches from its workers in turn, always beginning with worker 0.
        worker = (_worker_and_count()[0] + self.first_worker) % len(self.positions)
        counter = SkipCounter(self.max_skipped_fraction)
        samples: list[Sample] = []
        begin = self.positions[worker].spans[0].epoch
        for sample, position, is_last in self._samples(self.positions[worker], counter):
            if sample is not None:
                samples.append(sample)
            if not (len(samples) == self.batch_size or (is_last and samples)):
                continue
            batch, refused = self.make(samples)
            if refused:
                samples = _without(samples, refused, counter)
                if position.spans[0].epoch - begin > self.batch_size:  # an epoch without a single one to keep
                    raise _nothing_usable(position.spans[0], counter)
                if not is_last or batch is None:
                    continue  # the next ones fill it up
            counter.good(len(samples))
            batch.position = position
            yield batch
            samples, begin = [], position.spans[0].epoch

    def _samples(self, begin: Position, counter: SkipCounter) -> Iterator[tuple[Sample | None, Position, bool]]:
        """Yields each record's sample (None: a bad one), the position after it, and True if its bucket ends there."""
        buckets = self.reader.buckets
        for position in begin.walk():
            span = position.spans[0]
            after, found = span.start, False
            for after, record in enumerate(self.reader.records(span), span.start + 1):
                sample = _parse(record, counter)
                found = found or sample is not None
                yield sample, position.at(after), buckets is not None and after % self.batch_size == 0
            if not found and span.is_whole:  # or it would look for one forever
                raise _nothing_usable(span, counter)
            if buckets is not None:
                yield None, position.at(after), True


class EvalStream(IterableDataset):
    """Batches with every sample once over all ranks and workers, nothing padded or repeated.

    Batches are cut before they are dealt, so the same samples share one whatever the ranks, the workers and what is
    done already. Where the samples of each shard are known, every worker of every rank has a range of the batches left
    and opens the shards of that range only. Otherwise all read all shards, and take batches in turn.
    A `RawBatch` has up to `batch_size` samples: fewer at the end and where samples were skipped; the last one of each
    worker has none, but the `split_size`.

    Args:
        shards: paths or urls, each once.
        counts: samples of each shard; None: not known.
        rank: 0 .. world - 1.
        world: number of ranks.
        batch_size: samples per batch.
        num_samples: a draw of so many, see `gp.data.dealing.drawn`; the first so many if `counts` are not known;
            None: all.
        done: positions of samples that are done already; all ranks must be given the same ones.

    Raises:
        ValueError: a shard listed twice, a rank out of range; while iterating, a truncated shard, one that is not
            what its manifest says, or no samples at all.
    """

    def __init__(
        self,
        shards: Sequence[str],
        counts: Sequence[int] | None = None,
        *,
        rank: int = 0,
        world: int = 1,
        batch_size: int = 1,
        num_samples: int | None = None,
        done: Collection[int] = (),
    ):
        if twice := [shard for position, shard in enumerate(shards) if shard in shards[:position]]:
            raise ValueError(f"shard {twice[0]} is listed twice: its samples would be evaluated twice")
        if not 0 <= rank < world:
            raise ValueError(f"expected a rank in 0..{world - 1} (world {world}), got {rank}")
        self.shards = list(shards)
        self.counts = counts
        self.rank, self.world = rank, world
        self.batch_size = batch_size
        self.num_samples = num_samples
        self.done = frozenset(done)

    def __iter__(self) -> Iterator[RawBatch]:
        names = shard_names(self.shards)
        if self.counts is None:
            yield from self._in_turn(names)
            return
        worker, workers = _worker_and_count()
        wanted = drawn(self.counts, self.num_samples)
        if not wanted:
            raise ValueError(f"no samples in shards {', '.join(self.shards)}")
        left = batches_left(wanted, self.batch_size, self.done)
        mine = part(part(left, self.rank, self.world), worker, workers)
        records = read_numbers(self.shards, names, self.counts, list(chain.from_iterable(mine)))
        for batch in mine:
            yield _decode(islice(records, len(batch)))
        yield RawBatch(split_size=len(wanted))

    def _in_turn(self, names: Sequence[str]) -> Iterator[RawBatch]:
        """Batches of all records read, every so many-th one."""
        worker, workers = _worker_and_count()
        files = chain.from_iterable(read_records(*shard) for shard in zip(self.shards, names, strict=True))
        turn, total = 0, 0
        for number, items in groupby(enumerate(islice(files, self.num_samples)), lambda it: it[0] // self.batch_size):
            batch = list(items)
            total = number * self.batch_size + len(batch)
            if all(position in self.done for position, _ in batch):
                continue
            if turn % (self.world * workers) == self.rank + self.world * worker:
                yield _decode(batch)
            turn += 1
        if not total:
            raise ValueError(f"no samples in shards {', '.join(self.shards)}")
        yield RawBatch(split_size=total)


def _parse(record: Record, counter: SkipCounter) -> Sample | None:
    """Sample of a record; None for a bad one, which is counted."""
    try:
        return parse_record(record)
    except BadSample as error:
        counter.bad(error)
        return None


def _nothing_usable(span: Span, counter: SkipCounter) -> ValueError:
    where = f"a whole epoch of training stream {span.stream} of {span.num_streams}"
    return ValueError(f"{where} has no usable sample: {counter.summary()}")


def _without(samples: list[Sample], refused: list[BadSample], counter: SkipCounter) -> list[Sample]:
    """Counts the refused samples; returns the others."""
    for error in refused:
        counter.bad(error)
    ids = {error.where for error in refused}
    return [sample for sample in samples if sample.id not in ids]


def _decode(records: Iterable[tuple[int, Record]]) -> RawBatch:
    batch = RawBatch()
    for number, record in records:
        try:
            batch.samples.append(parse_record(record, number))
        except BadSample as error:
            batch.skipped.append(error)
    return batch


def _worker_and_count() -> tuple[int, int]:
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)
