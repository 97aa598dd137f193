"""Worker processes that end with the process they read for."""

from __future__ import annotations

import multiprocessing
import os
from threading import Thread


def end_with_parent(worker_id: int) -> None:
    """A DataLoader's `worker_init_fn`: ends this worker as soon as its parent is gone, however it went.

    torch's workers notice that, too, but then wait for somebody to read the batches that they have sent off. After a
    SIGKILL nobody does, and they would stay for ever.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
