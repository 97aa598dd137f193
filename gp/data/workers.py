"""Number of worker processes, and their start: they end with their parent and keep memory that batches free."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
from threading import Thread

log = logging.getLogger(__name__)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES, MMAP_BYTES = 2**28, 2**25  # the second is the most that glibc takes


def fit_workers(num_shards: int, num_samples: int | None, world: int, num_workers: int) -> int:
    """Workers per rank, reduced (and logged) until every training stream has something to read.

    Args:
        num_shards: of the training set.
        num_samples: of the training set; where it is known, streams share shards and need one sample each, otherwise
            one shard.
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


def start_worker(worker_id: int) -> None:
    """Prepares a worker process; a DataLoader's `worker_init_fn`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which finishes its step and ends this
    end_with_parent()
    keep_memory()


def end_with_parent() -> None:
    """Ends this worker as soon as its parent is gone, however it went.

    torch's workers notice that, too, but then wait for somebody to read the batches that they have sent off. After a
    SIGKILL nobody does, and they would stay for ever.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def keep_memory() -> None:
    """Lets glibc keep up to `KEPT_BYTES` that a batch has freed for the next one; elsewhere it does nothing.

    By default it returns them to the system, and every batch faults them in again page by page.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
