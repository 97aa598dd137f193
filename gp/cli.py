"""The frame of every command: a mistake becomes one line and an exit status, anything else keeps its traceback."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MISTAKES = (ValueError, OSError)  # of settings, files and data; any other error is one of the program
MISTAKE, INTERRUPTED, TERMINATED = 2, 130, 143
CONSOLE = "gp-"  # what the names of the installed commands begin with
# scripts of a clone, as documentation and messages name them -> the installed command
INSTALLED = {
    r"python train\.py": "gp-train",
    r"python evaluate\.py": "gp-evaluate",
    r"python shards/build\.py": "gp-shards build",
    r"python shards/check\.py": "gp-shards check",
    r"python shards/build_tiny\.py": "gp-shards tiny",
    r"(torchrun .*?)evaluate\.py": r"\1-m gp.commands.evaluate",
    r"--config configs/(\w+)\.yaml": r"--config \1",
}
RANKS = ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID")  # of torchrun, Lightning's own processes, and SLURM


class Stop(SystemExit):
    """A command ends before its work is done, with a status and one line on stderr, for which there is no traceback.

    Args:
        status: exit status.
        line: says why, and how to go on; empty: nothing is printed.
    """

    def __init__(self, status: int, line: str = "") -> None:
        super().__init__(status)
        self.status, self.line = status, line


class Terminated(SystemExit):
    """SIGTERM or SIGUSR1 came; raised in the main thread, so that what is open is closed."""


def add_traceback(parser: argparse.ArgumentParser) -> None:
    """Adds `--traceback`, which every command has."""
    parser.add_argument("--traceback", action="store_true", help="show where a mistake in settings or data was noticed")


def as_typed(text: str) -> str:
    """A text that names scripts of a clone, in the words of who started an installed command."""
    if not _is_installed_command():
        return text
    for script, command in INSTALLED.items():
        text = re.sub(script, command, text)
    return text


def command_line() -> str:
    """The command line of this process, to be run again: `python train.py ...`, `gp-train ...`, `python -m gp ...`."""
    program = Path(sys.argv[0])
    if program.name.startswith(CONSOLE):
        return shlex.join([program.name, *sys.argv[1:]])
    if (module := _module_of(program)) is not None:
        return shlex.join(["python", "-m", module, *sys.argv[1:]])
    return shlex.join(["python", *sys.argv])


def _is_installed_command() -> bool:
    program = Path(sys.argv[0])
    clone = Path(__file__).resolve().parents[1] / "train.py"
    return program.name.startswith(CONSOLE) or (_module_of(program) is not None and not clone.is_file())


def _module_of(program: Path) -> str | None:
    """The module of gp that a file is, as `python -m` takes it; None if it is none."""
    package = Path(__file__).resolve().parent
    if program.suffix != ".py" or not program.resolve().is_relative_to(package):
        return None
    return ".".join(program.resolve().relative_to(package.parent).with_suffix("").parts).removesuffix(".__main__")


def settings_parser(program: str, usage: str, description: str) -> argparse.ArgumentParser:
    """A parser of `key=value` settings for a command of `python -m`: `settings` of what it parses."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        usage=f"python -m {program} {usage}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="see above")
    return parser


def run(work: Callable[[], int | None], traceback: bool = False, again: str = "") -> int:
    """Runs a command.

    Args:
        work: does everything, and returns the exit status; None: 0.
        traceback: raise mistakes instead of describing them.
        again: what to do after an interrupt, e.g. "run the same command again to go on".

    Returns:
        The status: that of `work` or of a `Stop`, 2 after a mistake (`error: ...` on stderr), 130 after Ctrl-C, 143
        after SIGTERM or SIGUSR1; of several processes the first one says that.
    """
    try:
        with _raising(signal.SIGTERM), _raising(signal.SIGUSR1):
            return work() or 0
    except MISTAKES as error:
        if traceback:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        return _stopped("interrupted", again, INTERRUPTED)
    except Terminated:
        return _stopped("terminated", again, TERMINATED)
    except Stop as stop:
        if stop.line:
            print(stop.line, file=sys.stderr)
        return stop.status
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning answers Ctrl-C with exit(1)
            return _stopped("interrupted", again, INTERRUPTED)
        raise


def one_line(error: BaseException) -> str:
    """The message of an error; of the system's own, file and reason without the number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line) or type(error).__name__


def _stopped(how: str, again: str, status: int) -> int:
    if _is_first():  # of several processes that got the signal one says so
        print(": ".join(part for part in (how, again) if part), file=sys.stderr)
    return status


def _is_first() -> bool:
    """Whether this is the only process of its command or the first one, as far as its launcher tells."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


@contextmanager
def _raising(which: signal.Signals) -> Iterator[None]:
    """Makes a signal an exception in this process, unless someone else already handles it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(which) != signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def handle(number: int, frame: object) -> None:
        if os.getpid() == owner:
            raise Terminated(TERMINATED)
        signal.signal(number, signal.SIG_DFL)  # a forked worker dies of it, as it would have without this handler
        os.kill(os.getpid(), number)

    signal.signal(which, handle)
    try:
        yield
    finally:
        signal.signal(which, signal.SIG_DFL)
