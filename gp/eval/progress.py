"""The progress bar of a pass: samples, samples a second, time left."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from gp.data.counts import sample_counts


class SpeedColumn(ProgressColumn):
    """Samples a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} samples/s")


def make_progress(console: Console | None) -> Progress:
    """One bar a pass; None shows nothing."""
    description, time_left = TextColumn("{task.description}"), TimeRemainingColumn()
    columns = (description, BarColumn(), MofNCompleteColumn(), SpeedColumn(), time_left)
    return Progress(*columns, console=console, disable=console is None)


def count_samples(shards: Sequence[str], limit: int | None = None) -> int | None:
    """Samples of a split: from manifests, or else from the headers of its tars, where several questions about one image
    count once; None if these are not all local files.
    """
    known = sample_counts(shards)
    if known is not None:
        return sum(known) if limit is None else min(sum(known), limit)
    if not all(Path(shard).is_file() for shard in shards):
        return limit
    count = 0
    for shard in shards:
        try:
            with tarfile.open(shard) as tar:
                count += sum(name.endswith(".json") for name in tar.getnames())
        except tarfile.TarError:
            return limit  # reading it will say what is wrong
    return count if limit is None else min(count, limit)
