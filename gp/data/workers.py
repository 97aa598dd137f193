"""How worker processes start: they end with the process they read for, and keep the memory that batches free."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from threading import Thread

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES, MMAP_BYTES = 2**28, 2**25  # the second is the most that glibc takes


def start_worker(worker_id: int) -> None:
    """A DataLoader's `worker_init_fn`."""
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
