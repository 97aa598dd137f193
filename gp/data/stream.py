"""Streams of samples: an endless shuffled one for training and a finite ordered one for evaluation.

Who reads what follows from the rank and the number of ranks that the caller names and from the worker that torch
reports, never from environment variables: these differ between launchers and are lost in spawned workers.

Training deals shards (`gp.data.cursor`), so a rank reads only its own. Evaluation deals samples, so that any number
of ranks and workers gets each sample exactly once: each worker then reads all shards, but decodes its own samples only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count, groupby, islice
from random import Random

import webdataset as wds
from torch.utils.data import IterableDataset, get_worker_info

from gp.data.cursor import Cursor, Part, Parts, Plan
from gp.data.sample import BadSample, Sample, parse_record
from gp.data.shards import Record, read_records, shard_names
from gp.data.skipping import SkipCounter


@dataclass
class Drawn:
    """The samples of one batch, and what came with them.

    Args:
        samples: decoded; may be none in evaluation.
        cursor: in training, where the stream stands after them.
        skipped: in evaluation, the bad samples among them.
        total: in evaluation, after the last batch: the number of samples of the whole split.
    """

    samples: list[Sample] = field(default_factory=list)
    cursor: Cursor | None = None
    skipped: list[BadSample] = field(default_factory=list)
    total: int | None = None


class TrainStream(IterableDataset):
    """Endless batches for one rank, from one stream a worker; each `Drawn` has `batch_size` samples.

    The order is a pure function of the plans and the seed. Every epoch gives the shards out anew, so a rank does not
    keep the same ones, and streams with fewer records simply begin their next epoch earlier.

    Args:
        shards: paths or urls of the whole training set, at least as many as streams.
        plans: one a worker.
        seed: of the order.
        batch_size: samples a batch.
        shuffle_buffer: undecoded records held for shuffling, a worker; 1 or less keeps the order of the shards.
        max_skipped_fraction: see `SkipCounter`.
        first_worker: whose batch comes first, when resuming in the middle of a round of the workers.

    Raises:
        ValueError: while iterating, if a shard is truncated, too many samples are bad, or a stream has none at all.
    """

    def __init__(
        self,
        shards: Sequence[str],
        plans: Sequence[Plan],
        *,
        seed: int,
        batch_size: int,
        shuffle_buffer: int,
        max_skipped_fraction: float,
        first_worker: int = 0,
    ):
        self.shards = list(shards)
        self.names = dict(zip(self.shards, shard_names(self.shards), strict=True))
        self.plans = list(plans)
        self.seed = seed
        self.batch_size = batch_size
        self.shuffle_buffer = shuffle_buffer
        self.max_skipped_fraction = max_skipped_fraction
        self.first_worker = first_worker

    def __iter__(self) -> Iterator[Drawn]:
        # torch takes batches from its workers in turn, always beginning with worker 0.
        worker = (_worker_and_count()[0] + self.first_worker) % len(self.plans)
        drawn = Drawn()
        for sample, parts in self._samples(self.plans[worker]):
            drawn.samples.append(sample)
            if len(drawn.samples) == self.batch_size:
                drawn.cursor = Cursor(worker, parts)
                yield drawn
                drawn = Drawn()

    def records(self, part: Part) -> Iterator[Record]:
        """The records of one part in their order, not decoded; the first `part.start` are read and dropped."""
        shards = list(self.shards)
        Random(f"shards {self.seed} {part.epoch}").shuffle(shards)
        mine = shards[part.number :: part.of]
        records = chain.from_iterable(read_records(shard, self.names[shard]) for shard in mine)
        rng = Random(f"records {self.seed} {part.epoch} {part.number} {part.of}")
        return islice(wds.shuffle(self.shuffle_buffer, rng=rng)(records), part.start, None)

    def _samples(self, plan: Plan) -> Iterator[tuple[Sample, Parts]]:
        """Each good sample, with the parts in hand after it."""
        counter = SkipCounter(self.max_skipped_fraction)
        for parts in plan.walk():
            part, found = parts[0], False
            for position, record in enumerate(self.records(part), part.start + 1):
                try:
                    sample = parse_record(record)
                except BadSample as error:
                    counter.bad(error)
                    continue
                counter.good()
                found = True
                yield sample, (replace(part, start=position), *parts[1:])
            if not found and part.start == 0:  # or it would look for one forever
                where = f"a whole epoch of training stream {part.number} of {part.of}"
                raise ValueError(f"{where} has no usable sample: {counter.summary()}")


class EvalStream(IterableDataset):
    """Every sample once over all ranks and workers, in the order of the shards, nothing padded and nothing repeated.

    Sample number i of those not in `skip_ids` goes to rank i % world. A rank's workers take its batches in turn, so
    they arrive in order. A `Drawn` has up to `batch_size` samples: fewer at the end and where samples were skipped;
    the last one of each worker has none, but the `total`.

    Args:
        shards: paths or urls, each once.
        rank: 0 .. world - 1.
        world: number of ranks.
        batch_size: samples a batch.
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

    def __iter__(self) -> Iterator[Drawn]:
        worker, workers = _worker_and_count()
        total = count()
        counted = (record for record, _ in zip(self.records(), total))
        todo = (record for record in counted if record.id not in self.skip_ids)
        mine = islice(todo, self.rank, None, self.world)
        for batch, numbered in groupby(enumerate(mine), lambda item: item[0] // self.batch_size):
            if batch % workers == worker:
                yield _decode(record for _, record in numbered)
        yield Drawn(total=next(total))

    def records(self) -> Iterator[Record]:
        """All records of the split, not decoded."""
        names = shard_names(self.shards)
        records = chain.from_iterable(read_records(*shard) for shard in zip(self.shards, names, strict=True))
        first = next(records, None)
        if first is None:
            raise ValueError(f"no samples in shards {', '.join(self.shards)}")
        return islice(chain([first], records), self.num_samples)


def _decode(records: Iterator[Record]) -> Drawn:
    drawn = Drawn()
    for record in records:
        try:
            drawn.samples.append(parse_record(record))
        except BadSample as error:
            drawn.skipped.append(error)
    return drawn


def _worker_and_count() -> tuple[int, int]:
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)
