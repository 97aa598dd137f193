"""How long a loader keeps its user waiting. It knows nothing of Lightning."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from gp.data.batch import Batch


class TimedLoader:
    """Iterates a loader and adds up the seconds until each batch came, in `waited_s`.

    Args:
        loader: of batches.
    """

    def __init__(self, loader: Iterable[Batch]) -> None:
        self.loader = loader
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Batch]:
        start = time.perf_counter()
        for batch in self.loader:
            self.waited_s += time.perf_counter() - start
            yield batch
            start = time.perf_counter()
