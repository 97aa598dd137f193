"""What a long build shows: share done, MiB and questions a second, time left."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 30.0  # where there is no terminal to redraw

Watcher = Callable[[float, int, int], None]  # share done, questions written, bytes of images read


class Display:
    """A bar on a terminal, a line now and then in a log file."""

    def __init__(self, label: str, console: Console | None = None):
        self.label = label
        self.console = console or Console(stderr=True)
        rate, left = TextColumn("{task.fields[rate]}"), TimeRemainingColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), rate, left)
        self._bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self._task = self._bar.add_task(label, total=1.0, rate="")
        self._started_s = self._line_s = time.monotonic()
        self._first: float | None = None

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, fraction: float, samples: int, image_bytes: int) -> None:
        """Called as often as one likes."""
        now_s = time.monotonic()
        if self._first is None:
            self._first = fraction  # a resumed build did not do this share in this run
        passed_s = max(now_s - self._started_s, 1e-9)
        rate = f"{image_bytes / 2**20 / passed_s:.0f} MiB/s {samples / passed_s:.0f} questions/s"
        self._bar.update(self._task, completed=fraction, rate=rate)
        if not self.console.is_terminal and now_s - self._line_s >= LINE_EVERY_S:
            self._line_s = now_s
            speed = (fraction - self._first) / passed_s
            left = f"{(1 - fraction) / speed / 60:.0f} min left" if speed > 0 else "time left unknown"
            self.console.print(f"{self.label}: {fraction:.1%}, {rate}, {left}", highlight=False)
