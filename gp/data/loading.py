"""What workers make of the samples that a stream has drawn, and how evaluation takes it from them.

Started workers import this file and what it needs; it knows nothing of Lightning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import DataLoader

from gp.data.batch import Batch, Collator
from gp.data.sample import BadSample, claimed_size
from gp.data.shards import Record
from gp.data.skipping import SkipCounter
from gp.data.stream import Drawn


@dataclass
class EvalItem:
    """One batch of evaluation, or what took its place."""

    batch: Batch | None  # None: all its samples were skipped
    num_good: int
    skipped: list[BadSample]
    total: int | None  # of the split, once the worker has seen all of it


class EvalLoader:
    """Iterates `Batch`es of one rank and counts what was skipped.

    Args:
        loader: of `EvalItem`s.
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
        for item in self.loader:
            self.skips.good(item.num_good)
            for error in item.skipped:
                self.skips.bad(error)
            if item.batch is not None:
                yield item.batch
            total = item.total or total
        self.skips.finish(total)


def collate_train(collator: Collator, drawn: Drawn) -> Batch:
    """Images are pixel values by now and stay behind: they are large, and workers send batches to another process."""
    batch = collator(drawn.samples)
    batch.samples = [sample.without_image() for sample in batch.samples]
    batch.cursor = drawn.cursor
    return batch


def collate_eval(collator: Collator, drawn: Drawn) -> EvalItem:
    """Of a batch that may have no usable sample."""
    batch = collator(drawn.samples) if drawn.samples else None
    return EvalItem(batch, len(drawn.samples), drawn.skipped, drawn.total)


def num_visual_tokens(collator: Collator, record: Record) -> int:
    """By the size that the record's json states; 0 if it does not."""
    size = claimed_size(record)
    return 0 if size is None else collator.num_visual_tokens(*size)
