"""Streams of samples: an endless shuffled one for training and a finite ordered one for evaluation.

Who reads what follows from the rank and the number of ranks that the caller names and from the worker that torch
reports, never from environment variables: these differ between launchers and are lost in spawned workers.

Training deals ranges of shards (`gp.data.epoch`), so a rank reads only its own. Evaluation deals samples, so that any
number of ranks and workers gets each sample exactly once: each worker then reads all shards, but decodes its own
samples only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, groupby, islice

from torch.utils.data import IterableDataset, get_worker_info

from gp.data.epoch import EpochReader
from gp.data.position import Position
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


class TrainStream(IterableDataset):
    """Endless batches for one rank, from one stream per worker.

    Each `RawBatch` has `batch_size` samples, the last of one epoch together with the first of the next. With bucketing
    one has fewer where a sample is bad, and at the end of an epoch of its stream: it must not mix lengths.

    Args:
        reader: of the records.
        positions: where each worker's stream begins.
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
        *,
        batch_size: int,
        max_skipped_fraction: float,
        first_worker: int = 0,
    ):
        self.reader = reader
        self.positions = list(positions)
        self.batch_size = batch_size
        self.max_skipped_fraction = max_skipped_fraction
        self.first_worker = first_worker

    def __iter__(self) -> Iterator[RawBatch]:
        # torch takes batches from its workers in turn, always beginning with worker 0.
        worker = (_worker_and_count()[0] + self.first_worker) % len(self.positions)
        batch = RawBatch()
        for sample, position, is_last in self._samples(self.positions[worker]):
            if sample is not None:
                batch.samples.append(sample)
            if len(batch.samples) == self.batch_size or (is_last and batch.samples):
                batch.position = position
                yield batch
                batch = RawBatch()

    def _samples(self, begin: Position) -> Iterator[tuple[Sample | None, Position, bool]]:
        """Yields each record's sample (None: a bad one), the position after it, and True if its bucket ends there."""
        counter, buckets = SkipCounter(self.max_skipped_fraction), self.reader.buckets
        for position in begin.walk():
            span = position.spans[0]
            after, found = span.start, False
            for after, record in enumerate(self.reader.records(span), span.start + 1):
                sample = _parse(record, counter)
                found = found or sample is not None
                yield sample, position.at(after), buckets is not None and after % self.batch_size == 0
            if not found and span.is_whole:  # or it would look for one forever
                where = f"a whole epoch of training stream {span.stream} of {span.num_streams}"
                raise ValueError(f"{where} has no usable sample: {counter.summary()}")
            if buckets is not None:
                yield None, position.at(after), True


class EvalStream(IterableDataset):
    """Batches with every sample once over all ranks and workers, in the shards' order, nothing padded or repeated.

    Sample number i of those not in `skip_ids` goes to rank i % world. A rank's workers take its batches in turn, so
    they arrive in order. A `RawBatch` has up to `batch_size` samples: fewer at the end and where samples were skipped;
    the last one of each worker has none, but the `split_size`.

    Args:
        shards: paths or urls, each once.
        rank: 0 .. world - 1.
        world: number of ranks.
        batch_size: samples per batch.
        num_samples: only the first so many of the split; None: all.
        skip_ids: ids that are done already; all ranks must be given the same ones.

    Raises:
        ValueError: a shard listed twice, a rank out of range; while iterating, a truncated shard or no samples at all.
    """

    def __init__(
        self,
        shards: Sequence[str],
        *,
        rank: int = 0,
        world: int = 1,
        batch_size: int = 1,
        num_samples: int | None = None,
        skip_ids: Collection[str] = (),
    ):
        if twice := [shard for position, shard in enumerate(shards) if shard in shards[:position]]:
            raise ValueError(f"shard {twice[0]} is listed twice: its samples would be evaluated twice")
        if not 0 <= rank < world:
            raise ValueError(f"expected a rank in 0..{world - 1} (world {world}), got {rank}")
        self.shards = list(shards)
        self.rank, self.world = rank, world
        self.batch_size = batch_size
        self.num_samples = num_samples
        self.skip_ids = frozenset(skip_ids)

    def __iter__(self) -> Iterator[RawBatch]:
        worker, workers = _worker_and_count()
        total = count()
        counted = (record for record, _ in zip(self.records(), total))
        todo = (record for record in counted if record.id not in self.skip_ids)
        mine = islice(todo, self.rank, None, self.world)
        for batch, numbered in groupby(enumerate(mine), lambda item: item[0] // self.batch_size):
            if batch % workers == worker:
                yield _decode(record for _, record in numbered)
        yield RawBatch(split_size=next(total))

    def records(self) -> Iterator[Record]:
        """Records of the split, not decoded."""
        names = shard_names(self.shards)
        records = chain.from_iterable(read_records(*shard) for shard in zip(self.shards, names, strict=True))
        first = next(records, None)
        if first is None:
            raise ValueError(f"no samples in shards {', '.join(self.shards)}")
        return islice(chain([first], records), self.num_samples)


def _parse(record: Record, counter: SkipCounter) -> Sample | None:
    """Sample of a record, counted; None for a bad one."""
    try:
        sample = parse_record(record)
    except BadSample as error:
        counter.bad(error)
        return None
    counter.good()
    return sample


def _decode(records: Iterator[Record]) -> RawBatch:
    batch = RawBatch()
    for record in records:
        try:
            batch.samples.append(parse_record(record))
        except BadSample as error:
            batch.skipped.append(error)
    return batch


def _worker_and_count() -> tuple[int, int]:
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)
