"""Progress of long work: a bar if a terminal shows it, a readable line now and then in a file or in CI."""

from __future__ import annotations

import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

LINE_EVERY_S = 20.0


class Progress:
    """Shows what is done of a total, the time it took and the time left, with a text beside it.

    Args:
        label: names the work.
        total: units; None: not known.
        completed: units done before.
        unit: the rate is shown in it; "": no rate.
        is_share: show the share of the total in percent, not units.
        console: shows it; None: nothing is shown.
        every_s: seconds between lines where there is no bar; 0: a line at every update.
    """

    def __init__(
        self,
        label: str,
        total: float | None,
        completed: int = 0,
        *,
        console: Console | None,
        unit: str = "",
        is_share: bool = False,
        every_s: float | None = None,
    ) -> None:
        self.console = console
        self.has_bar = console is not None and console.is_terminal
        self._label, self._unit, self._is_share = label, unit, is_share
        self._every_s = LINE_EVERY_S if every_s is None else every_s
        first, *rest = (TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("label", "done", "text"))
        columns = (first, BarColumn(), *rest, TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=console, disable=not self.has_bar)
        self._bar.add_task("", total=total, completed=completed, label=label, done="", text="")
        self._task = self._bar.tasks[0]
        self._line_s = time.monotonic()
        self._pending = False

    def __enter__(self) -> Progress:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Shows the bar, if there is one."""
        self._bar.start()

    def update(self, text: str = "", completed: float | None = None, advance: float | None = None) -> None:
        """Tells how far the work is.

        Args:
            text: shown beside the figures until the next update.
            completed: units of the total that are done.
            advance: units done since the last update.
        """
        self._bar.update(self._task.id, completed=completed, advance=advance)
        speed = (self._task.finished_speed or self._task.speed) if self._unit else None
        rate = "" if speed is None else f"{speed:.1f} {self._unit}/s"
        self._bar.update(self._task.id, done=self._done(), text=_joined(rate, text))
        self._pending = self.console is not None and not self.has_bar
        if self._pending and time.monotonic() - self._line_s >= self._every_s:
            self._print_line()

    def stop(self) -> None:
        """Leaves the last state on the screen; may be called twice."""
        self._bar.stop()
        if self._pending:
            self._print_line()

    def _print_line(self) -> None:
        elapsed_s, left_s = self._task.elapsed, self._task.time_remaining
        times = f"{_clock(elapsed_s)} passed" + ("" if left_s is None else f", {_clock(left_s)} left")
        line = _joined(f"{self._label} {self._task.fields['done']}", self._task.fields["text"], times)
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._line_s, self._pending = time.monotonic(), False

    def _done(self) -> str:
        completed, total = self._task.completed, self._task.total
        if self._is_share and total:
            return f"{completed / total:.1%}"
        return f"{completed:.0f}" if total is None else f"{completed:.0f}/{total:.0f}"


def _joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)


def _clock(seconds: float | None) -> str:
    return str(timedelta(seconds=int(seconds or 0)))
