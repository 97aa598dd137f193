"""The Lightning DataModule: loaders for training, validation and test, and exact resuming in mid-epoch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from gp.config.schema import DataConfig
from gp.data.batch import Batch, Collator
from gp.data.counts import sample_counts
from gp.data.cursor import Cursor, Plan, deal_again, first_plans, fit_workers, from_lists, resumed_plans, to_lists
from gp.data.epoch import Buckets, EpochOrder
from gp.data.loading import EvalLoader, collate_eval, collate_train, num_visual_tokens
from gp.data.shards import resolve_shards, shard_names
from gp.data.stream import EvalStream, TrainStream
from gp.data.workers import start_worker

log = logging.getLogger(__name__)
SAMPLES = "number of samples (from manifests)"


class GlimpseDataModule(L.LightningDataModule):
    """Streams the shards that a config names.

    The training loader is endless: the Trainer stops by `max_steps`. A checkpoint made by the Trainer holds where
    every stream stands after the last batch that was trained on (not the last one prefetched), so a resumed run goes
    on with the very next sample, whatever the number of workers or ranks; with other numbers of them, what was left
    is dealt out again.

    Args:
        config: the `data` section.
        collator: samples -> `Batch`.
        seed: of the order of the training samples.
        val_samples: only the first so many of the validation split; None: all.
    """

    def __init__(self, config: DataConfig, collator: Collator, seed: int = 0, val_samples: int | None = None):
        super().__init__()
        self.config = config
        self.collator = collator
        self.seed = seed
        self.val_samples = val_samples
        self._place: _Place | None = None
        self._loaded: dict[str, Any] = {}

    def prepare_data(self) -> None:
        """On one process a machine: builds the embedded shards at need and finds missing files early."""
        for entries in (self.config.train, self.config.val):
            resolve_shards(entries, self.config.root)

    def num_train_samples(self) -> int | None:
        """Questions of an epoch; None if they are not all in manifests."""
        counts = self._train_shards()[1]
        return None if counts is None else sum(counts)

    def fit_workers(self, world: int) -> int:
        """Workers a rank of `world`, see `gp.data.cursor.fit_workers`."""
        shards, counts = self._train_shards()
        return fit_workers(len(shards), None if counts is None else sum(counts), world, self.config.num_workers)

    def train_dataloader(self) -> DataLoader:
        """Endless `Batch`es of this rank.

        Raises:
            FileNotFoundError: a shard is missing.
            ValueError: less data than devices, shards that do not match their manifest, ranks that see other data, or
                a checkpoint's place in other data or another order.
        """
        rank, world = self._rank_and_world()
        shards, counts = self._train_shards()
        workers = self.fit_workers(world)
        order = self._order(shards, counts)
        _agree(order, world)
        plans, first_worker = self._plans(order, rank, world, max(workers, 1))
        self._place = _Place(order, plans, first_worker)
        stream = TrainStream(
            EpochOrder(shards, self.seed, self.config.shuffle_buffer, counts, self._buckets()),
            plans,
            batch_size=self.config.batch_size,
            max_skipped_fraction=self.config.max_skipped_fraction,
            first_worker=first_worker,
        )
        return self._loader(stream, workers, partial(collate_train, self.collator))

    def val_dataloader(self) -> EvalLoader:
        """The validation split once, dealt over the ranks."""
        return self.eval_loader(self.config.val, *self._rank_and_world(), num_samples=self.val_samples)

    def test_dataloader(self, split: str = "test") -> EvalLoader:
        """A split of `data.test` once, dealt over the ranks; ValueError if there is no such split."""
        if split not in self.config.test:
            raise ValueError(f"data.test has no split {split!r}, only {', '.join(sorted(self.config.test))}")
        return self.eval_loader(self.config.test[split], *self._rank_and_world())

    def eval_loader(
        self,
        entries: Sequence[str],
        rank: int = 0,
        world: int = 1,
        skip_ids: Collection[str] = (),
        num_samples: int | None = None,
    ) -> EvalLoader:
        """Any shards once, in order, each sample on exactly one rank; needs no Trainer.

        Args:
            entries: as in the config, relative to `data.root`.
            rank: 0 .. world - 1.
            world: number of ranks.
            skip_ids: `Sample.id`s that are done already; the same on all ranks.
            num_samples: only the first so many of the shards' samples; None: all.
        """
        stream = EvalStream(
            resolve_shards(entries, self.config.root),
            rank=rank,
            world=world,
            batch_size=self.config.eval_batch_size,
            num_samples=num_samples,
            skip_ids=skip_ids,
        )
        loader = self._loader(stream, self.config.num_workers, partial(collate_eval, self.collator))
        return EvalLoader(loader, self.config.max_skipped_fraction)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Lightning calls it right before a batch is used, however far the loaders have read ahead."""
        if self._place is not None and batch.cursor is not None:
            self._place.enter(batch.cursor, self._batches_done())
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where all streams of all ranks stand, as plain lists. Every rank must call it, as `save_checkpoint` does."""
        if self._place is None:
            return self._loaded
        self._place.leave(self._batches_done())
        place, (_, world) = self._place, self._rank_and_world()
        mine = [to_lists([plan.parts])[0] for plan in place.plans]
        everyone = [mine]
        if world > 1:
            everyone = [None] * world
            torch.distributed.all_gather_object(everyone, mine)
        streams = [everyone[rank][worker] for worker in range(len(mine)) for rank in range(world)]
        return {"order": place.order, "world": world, "next_worker": place.next_worker, "streams": streams}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until `train_dataloader`, when rank and workers are known."""
        self._loaded = state_dict

    def _train_shards(self) -> tuple[list[str], list[int] | None]:
        """Shards, and the samples of each where all are known."""
        shards = resolve_shards(self.config.train, self.config.root)
        return shards, sample_counts(shards)

    def _buckets(self) -> Buckets | None:
        if self.config.bucket_batches == 1:
            return None
        length = partial(num_visual_tokens, self.collator)
        return Buckets(self.config.bucket_batches, self.config.batch_size, length)

    def _plans(self, order: dict[str, Any], rank: int, world: int, workers: int) -> tuple[list[Plan], int]:
        """What this rank's workers read, and which of them comes first."""
        saved = self._loaded
        if not saved:
            return first_plans(rank, world, workers), 0
        _check_same(saved["order"], order)
        streams = from_lists(saved["streams"])
        if (saved["world"], len(streams)) == (world, world * workers):
            return resumed_plans(streams, rank, world), saved["next_worker"]
        log.info("resuming %d data streams as %d: what is left is dealt again", len(streams), world * workers)
        return resumed_plans(deal_again(streams, world * workers, order[SAMPLES]), rank, world), 0

    def _order(self, shards: Sequence[str], counts: Sequence[int] | None) -> dict[str, Any]:
        """All that the order of the training samples hangs on, other than ranks and workers.

        Shards count by name, not by path: their folder may have been moved.
        """
        named = [f"{name} {count}" for name, count in zip(shard_names(shards), counts or [None] * len(shards))]
        config = self.config
        return {
            "seed": self.seed,
            "data.shuffle_buffer": config.shuffle_buffer,
            "data.bucket_batches": config.bucket_batches,
            "data.batch_size (with data.bucket_batches)": config.batch_size if config.bucket_batches > 1 else None,
            "number of shards": len(shards),
            SAMPLES: None if counts is None else sum(counts),
            "digest of the shards' names and samples": hashlib.sha256("\n".join(named).encode()).hexdigest()[:16],
        }

    def _loader(self, stream: TrainStream | EvalStream, workers: int, collate) -> DataLoader:
        options: dict[str, Any] = {}
        if workers:
            options = {"multiprocessing_context": self.config.worker_start_method, "worker_init_fn": start_worker}
        pin = torch.cuda.is_available()
        return DataLoader(stream, batch_size=None, num_workers=workers, collate_fn=collate, pin_memory=pin, **options)

    def _rank_and_world(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _batches_done(self) -> int:
        return 0 if self.trainer is None else self.trainer.fit_loop.epoch_loop.batch_progress.total.processed


@dataclass
class _Place:
    """Where this rank's streams stand after the last batch that was trained on."""

    order: dict[str, Any]
    plans: list[Plan]
    next_worker: int
    current: tuple[Cursor, int] | None = None

    def enter(self, cursor: Cursor, batches_done: int) -> None:
        """A batch is about to be trained on, the one before it was."""
        self.leave(batches_done)
        self.current = (cursor, batches_done)

    def leave(self, batches_done: int) -> None:
        """The current batch counts once the trainer has counted it: a step that failed half-way is not lost."""
        if self.current is None or batches_done <= self.current[1]:
            return
        cursor, _ = self.current
        plan = self.plans[cursor.worker]
        self.plans[cursor.worker] = Plan(plan.number, plan.of, cursor.parts)
        self.next_worker = (cursor.worker + 1) % len(self.plans)
        self.current = None


def _agree(order: dict[str, Any], world: int) -> None:
    """All ranks must see the same data: one that found no manifest would read another rank's samples."""
    if world == 1:
        return
    everyone: list[Any] = [None] * world
    torch.distributed.all_gather_object(everyone, order)
    for rank, other in enumerate(everyone):
        for name, value in everyone[0].items():
            if other[name] != value:
                raise ValueError(f"data.train: rank 0 sees {name} {value!r}, rank {rank} sees {other[name]!r}")


def _check_same(then: dict[str, Any], now: dict[str, Any]) -> None:
    """Compares the order of a checkpoint with that of this run; ValueError names what differs."""
    if then.keys() != now.keys():
        raise ValueError(
            "cannot resume in the middle of the training data: another version of this code made the checkpoint and "
            "put the samples in another order; start a new run, or go on with the version that made it"
        )
    for name, value in now.items():
        if then[name] != value:
            raise ValueError(
                f"cannot resume in the middle of the training data: the checkpoint was made with {name} "
                f"{then[name]!r}, this run has {value!r}; give the same data, or start a new run"
            )
