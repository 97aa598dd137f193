"""The Lightning DataModule: loaders for training, validation and test, and exact resuming in mid-epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from functools import partial
from itertools import repeat
from math import ceil
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from gp.config.schema import DataConfig
from gp.data.batch import Batch, Collator
from gp.data.bookmark import SAMPLES, Bookmark, check_ranks_agree, check_same_order
from gp.data.counts import counts_to_draw, sample_counts
from gp.data.epoch import Buckets, EpochReader
from gp.data.loading import EvalLoader, as_it_is, collate_eval, num_visual_tokens, train_batch
from gp.data.position import from_lists, num_read
from gp.data.shards import resolve_shards, shard_names
from gp.data.stream import EvalStream, TrainStream
from gp.data.timed import TimedLoader
from gp.data.windows import StepWindows
from gp.data.worker_loader import WorkerLoader
from gp.data.workers import fit_workers, start_worker


class GlimpseDataModule(L.LightningDataModule):
    """Streams the shards that a config names.

    The training loader is endless: the Trainer stops by `max_steps`. A checkpoint made by the Trainer holds where
    every stream stands after the last batch that was trained on (not the last one prefetched), so a resumed run goes
    on with the very next sample, whatever the number of workers or ranks; with other numbers of them, what was left
    is dealt out again.

    Args:
        config: the `data` section.
        collator: makes a `Batch` of samples.
        seed: of the order of the training samples.
        val_samples: a draw of so many from the validation split; None: all.
    """

    def __init__(self, config: DataConfig, collator: Collator, seed: int = 0, val_samples: int | None = None):
        super().__init__()
        self.config = config
        self.collator = collator
        self.seed = seed
        self.val_samples = val_samples
        self._bookmark: Bookmark | None = None
        self._loaded: dict[str, Any] = {}

    def prepare_data(self) -> None:
        """Builds the embedded shards at need and finds missing files early; runs in one process per machine."""
        for entries in (self.config.train, self.config.val):
            resolve_shards(entries, self.config.root, self.config.allow_pipes)

    def num_train_samples(self) -> int | None:
        """Questions of an epoch; None if they are not all in manifests."""
        counts = self._train_shards()[1]
        return None if counts is None else sum(counts)

    def check_position(self, saved: dict[str, Any]) -> None:
        """Refuses a checkpoint's `state_dict` that is of other data or another order (ValueError); empty: a new run."""
        if saved:
            check_same_order(saved["order"], self._order(*self._train_shards()))

    def num_read(self, saved: dict[str, Any]) -> int | None:
        """Samples that a checkpoint's `state_dict` has read of all epochs; None if it is not known."""
        total = saved["order"][SAMPLES] if saved else None
        return None if total is None else num_read(from_lists(saved["streams"]), total)

    def fit_workers(self, world: int) -> int:
        """Workers per rank of `world`, see `gp.data.workers.fit_workers`."""
        shards, counts = self._train_shards()
        return fit_workers(len(shards), None if counts is None else sum(counts), world, self.config.num_workers)

    def train_dataloader(self) -> TimedLoader:
        """Endless `Batch`es of this rank; those of several micro-batches per optimizer step know the step's counts.

        Raises:
            FileNotFoundError: a shard is missing.
            ValueError: less data than devices, shards that do not match their manifest, ranks that see other data, or
                a checkpoint's position in other data or another order.
        """
        rank, world = self._rank_and_world()
        shards, counts = self._train_shards()
        workers = self.fit_workers(world)
        order = self._order(shards, counts)
        check_ranks_agree(order, world)
        self._bookmark = Bookmark.open(self._loaded, order, rank, world, max(workers, 1))
        stream = TrainStream(
            EpochReader(shards, self.seed, self.config.shuffle_buffer, counts, self._buckets()),
            self._bookmark.positions,
            partial(train_batch, self.collator),
            batch_size=self.config.batch_size,
            max_skipped_fraction=self.config.max_skipped_fraction,
            first_worker=self._bookmark.next_worker,
        )
        size = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        loader = self._loader(stream, workers, as_it_is, ahead=2 * size)
        return TimedLoader(loader if size == 1 else self._windows(loader, size))

    def _windows(self, loader: DataLoader, size: int) -> StepWindows:
        limit = self.trainer.limit_train_batches
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return StepWindows(loader, size, lambda: progress.current.processed, limit if isinstance(limit, int) else None)

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
        done: Collection[int] = (),
        num_samples: int | None = None,
    ) -> EvalLoader:
        """Any shards once, each sample on exactly one rank; needs no Trainer.

        Args:
            entries: as in the config, relative to `data.root`.
            rank: 0 .. world - 1.
            world: number of ranks.
            done: `Sample.number`s that are done already; the same on all ranks.
            num_samples: a draw of so many of the shards' samples, see `gp.data.dealing.drawn`; None: all.
        """
        shards = resolve_shards(entries, self.config.root, self.config.allow_pipes)
        stream = EvalStream(
            shards,
            sample_counts(shards) if num_samples is None else counts_to_draw(shards),
            rank=rank,
            world=world,
            batch_size=self.config.eval_batch_size,
            num_samples=num_samples,
            done=done,
        )
        loader = self._loader(stream, self.config.num_workers, partial(collate_eval, self.collator))
        return EvalLoader(loader, self.config.max_skipped_fraction)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Moves the bookmark: Lightning calls it right before a batch is used, however far the loaders are ahead."""
        if self._bookmark is not None and batch.position is not None:
            self._bookmark.enter(batch.position, self._batches_done())
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Positions of all streams of all ranks. Every rank must call it, as `save_checkpoint` does."""
        if self._bookmark is None:
            return self._loaded
        self._bookmark.leave(self._batches_done())
        return self._bookmark.state_dict(self._rank_and_world()[1])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps it until `train_dataloader`, when rank and workers are known."""
        self._loaded = state_dict

    def _train_shards(self) -> tuple[list[str], list[int] | None]:
        """Shards, and the samples of each where all are known."""
        shards = resolve_shards(self.config.train, self.config.root, self.config.allow_pipes)
        return shards, sample_counts(shards)

    def _buckets(self) -> Buckets | None:
        if self.config.bucket_batches == 1:
            return None
        length = partial(num_visual_tokens, self.collator)
        return Buckets(self.config.bucket_batches, self.config.batch_size, length)

    def _order(self, shards: Sequence[str], counts: Sequence[int] | None) -> dict[str, Any]:
        """Everything that the sample order depends on, except the numbers of ranks and workers.

        Shards count by name, not by path: their folder may have been moved.
        """
        named = [f"{name} {count}" for name, count in zip(shard_names(shards), counts or repeat(None))]
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

    def _loader(self, stream: TrainStream | EvalStream, workers: int, collate, ahead: int = 0) -> DataLoader:
        """Loads `ahead` batches, or more, before they are asked for."""
        options: dict[str, Any] = {"collate_fn": collate, "pin_memory": torch.cuda.is_available()}
        if workers:
            options["worker_init_fn"] = start_worker
            options["prefetch_factor"] = max(2, ceil(ahead / workers))
            options["persistent_workers"] = self.config.persistent_workers and isinstance(stream, EvalStream)
        return WorkerLoader(stream, workers, self.config.worker_start_method, **options)

    def _rank_and_world(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _batches_done(self) -> int:
        if self.trainer is None:
            return 0
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        return progress.total.processed
