"""Progress of long work: done, rate and time left; a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from gp.data.counts import sample_counts

LINE_EVERY_S = 20.0


class SpeedColumn(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        return Text(_speed(task))


class Tracker:
    """What work over many rows reports to."""

    def __init__(self, progress: Progress, task: TaskID, prefix: str) -> None:
        self._progress, self._task, self._prefix = progress, task, prefix
        self._last_line_s = time.monotonic()

    def advance(self, row: str, count: int = 1) -> None:
        """So many more units are done, by this row."""
        self._progress.update(self._task, advance=count, description=f"{self._prefix} {row}")
        is_log = not self._progress.disable and not self._progress.console.is_terminal
        if is_log and time.monotonic() - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self._progress.console.print(self._line(), highlight=False)

    def _line(self) -> str:
        task = next(task for task in self._progress.tasks if task.id == self._task)
        left = "?" if task.time_remaining is None else f"{task.time_remaining:.0f}"
        done = f"{task.completed:.0f} of {task.total or '?'}"
        return f"{task.description}  {done}  {_speed(task)}  {left} s left"


@contextmanager
def track(
    console: Console | None, prefix: str, unit: str, total: int | None = None, completed: int = 0
) -> Iterator[Tracker]:
    """Progress over `total` units, of which so many were done before; no console shows nothing."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        SpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console is None) as progress:
        task = progress.add_task(prefix, total=total, completed=completed, unit=unit)
        yield Tracker(progress, task, prefix)


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


def _speed(task: Task) -> str:
    speed = task.finished_speed or task.speed
    return "" if speed is None else f"{speed:.1f} {task.fields['unit']}/s"
