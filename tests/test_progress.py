"""Progress in a log and on a terminal: what is done, the rate and the time left."""

from __future__ import annotations

import io

from rich.console import Console

from gp import progress
from gp.progress import Progress


def log(**options) -> Console:
    return Console(file=io.StringIO(), width=150, **options)


def test_a_log_gets_lines(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    console = log()
    with Progress("test", 30, 10, unit="answers", console=console) as work:
        work.update("random-0.5", advance=5)
        work.update("oracle-own", advance=5)
    first, second = console.file.getvalue().splitlines()
    assert first.startswith("test 15/30  random-0.5  ")
    assert second.startswith("test 20/30  ") and "answers/s  oracle-own  " in second and second.endswith(" left")


def test_lines_are_rare_and_the_last_state_is_one():
    console = log()
    with Progress("build [x]", 1.0, is_share=True, console=console) as work:
        for step in range(5):
            work.update(f"{step} MiB/s", completed=step / 8)
    (line,) = console.file.getvalue().splitlines()
    assert line.startswith("build [x] 50.0%  4 MiB/s  ")


def test_a_terminal_gets_a_bar():
    console = log(force_terminal=True)
    with Progress("test", None, console=console) as work:
        work.update("random-0.5", completed=7)
    assert "random-0.5" in console.file.getvalue() and "\x1b[" in console.file.getvalue()


def test_silent_without_a_console(capsys):
    with Progress("test", None, console=None, every_s=0) as work:
        work.update("random-0.5", advance=5)
    assert capsys.readouterr() == ("", "")
