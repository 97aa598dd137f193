"""Last step of the loaders: from raw batches to `Batch`es in the workers, and how evaluation takes these from them.

Started workers import this file and what it needs; it knows nothing of Lightning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader

from gp.data.batch import Batch, Collator
from gp.data.refusing import usable_batch
from gp.data.sample import BadSample, Sample, claimed_size
from gp.data.shards import Record
from gp.data.skipping import SkipCounter
from gp.data.stream import RawBatch


class EvalLoader:
    """Iterates `Batch`es of one rank and counts what was skipped.

    Args:
        loader: of what `collate_eval` returns.
        max_skipped_fraction: see `SkipCounter`; checked on the way and, against the whole split, at the end.

    `skips` holds the counts of the last pass, for reports.
    """

    def __init__(self, loader: DataLoader, max_skipped_fraction: float):
        self.loader = loader
        self.max_skipped_fraction = max_skipped_fraction
        self.skips = SkipCounter(max_skipped_fraction)

    def __iter__(self) -> Iterator[Batch]:
        self.skips = SkipCounter(self.max_skipped_fraction)
        total = 0
        for batch, raw in self.loader:
            self.skips.good(len(raw.samples))
            for error in raw.skipped:
                self.skips.bad(error)
            if batch is not None:
                yield batch
            total = raw.split_size or total
        self.skips.finish(total)


def train_batch(collator: Collator, samples: Sequence[Sample]) -> tuple[Batch | None, list[BadSample]]:
    """`usable_batch` without images: they are pixel values by now, and workers send what they return."""
    batch, refused = usable_batch(collator, samples)
    if batch is not None:
        batch.samples = [sample.without_image() for sample in batch.samples]
    return batch, refused


def collate_eval(collator: Collator, raw: RawBatch) -> tuple[Batch | None, RawBatch]:
    """Makes a batch of evaluation, None if all its samples were skipped; the raw one beside it says which."""
    batch, refused = usable_batch(collator, raw.samples)
    raw.skipped += refused
    raw.samples = [] if batch is None else batch.samples
    return batch, raw


def as_it_is(batch: Any) -> Any:
    """A DataLoader's `collate_fn` that leaves what the stream made."""
    return batch


def num_visual_tokens(collator: Collator, record: Record) -> int:
    """Visual tokens of an image of the size that the record's json states; 0 if it does not."""
    size = claimed_size(record)
    return 0 if size is None else collator.num_visual_tokens(*size)
