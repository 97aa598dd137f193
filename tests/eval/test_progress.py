"""Progress in a log: lines with what is done, the rate and the time left."""

from __future__ import annotations

import io

from rich.console import Console

from gp.eval import progress
from gp.eval.progress import track


def test_a_log_gets_lines(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    log = Console(file=io.StringIO(), width=150)
    with track(log, "test", "answers", total=30, completed=10) as work:
        work.advance("random-0.5", 5)
        work.advance("oracle-own", 5)
    lines = log.file.getvalue().splitlines()
    assert lines[0].startswith("test random-0.5  15 of 30")
    assert lines[1].startswith("test oracle-own  20 of 30") and "answers/s" in lines[1] and "s left" in lines[1]
    assert "20/30" in lines[2]  # the bar as it ended


def test_silent_without_a_console():
    with track(None, "test", "answers") as work:
        work.advance("random-0.5", 5)
