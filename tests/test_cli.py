"""The frame of every command: which error becomes which line and status."""

from __future__ import annotations

import argparse
import errno
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gp import cli

ROOT = Path(__file__).resolve().parent.parent
WAITS = """
import sys, time
from gp import cli

def work():
    print("ready", flush=True)
    time.sleep(60)

sys.exit(cli.run(work, again="go on"))
"""


def raises(error: BaseException):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a must be 1, got 2"), "error: a must be 1, got 2"),
        (ValueError("first\n  second\n"), "error: first second"),
        (ValueError(), "error: ValueError"),
        (FileNotFoundError("config x: no such file"), "error: config x: no such file"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), "error: runs/a: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "error: x: Permission denied"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "error: 'utf-8' codec can't decode byte"),
    ],
)
def test_a_mistake_is_one_line(error, line, capsys):
    assert cli.run(raises(error)) == 2
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith(line)
    with pytest.raises(type(error)):
        cli.run(raises(error), traceback=True)


@pytest.mark.parametrize("error", [RuntimeError("x"), TypeError("x"), KeyError("x"), AssertionError("x")])
def test_an_error_of_the_program_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        cli.run(raises(error))


def test_the_status_of_the_work_is_that_of_the_command():
    assert [cli.run(lambda status=status: status) for status in (None, 0, 1)] == [0, 0, 1]
    with pytest.raises(SystemExit) as stop:
        cli.run(raises(SystemExit(5)))
    assert stop.value.code == 5


def test_an_interrupt(capsys):
    def answered_with_exit():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning does

    assert cli.run(raises(KeyboardInterrupt()), again="once more") == 130
    assert cli.run(answered_with_exit) == 130
    assert capsys.readouterr().err == "interrupted: once more\ninterrupted\n"


@pytest.mark.parametrize(
    ("variables", "speaks"),
    [
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # the first one on the second machine
        ({"NODE_RANK": "0", "LOCAL_RANK": "1"}, False),
        ({"SLURM_PROCID": "1"}, False),
    ],
)
def test_of_several_processes_the_first_one_speaks(variables, speaks, monkeypatch, capsys):
    for name in cli.RANKS:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cli.run(raises(cli.Terminated())) == 143
    assert capsys.readouterr().err == ("terminated\n" if speaks else "")


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_signals(number, status, word):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, printed = process.communicate(timeout=20)
    assert process.returncode == status and printed == f"{word}: go on\n"


def test_a_forked_worker_dies_of_sigterm_and_the_handler_is_taken_away():
    def work():
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        time.sleep(0.1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM

    assert cli.run(work) == 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_every_command_has_the_option():
    parser = argparse.ArgumentParser()
    cli.add_traceback(parser)
    assert parser.parse_args(["--traceback"]).traceback and not parser.parse_args([]).traceback


MAINS = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.py"), *ROOT.glob("shards/*.py"), *ROOT.glob("gp/**/*.py"))
    if re.search(r"^def main\(", path.read_text(), re.MULTILINE)
)


@pytest.mark.parametrize("path", MAINS)
def test_every_main_uses_it(path):
    text = (ROOT / path).read_text()
    assert "cli.run(" in text and "cli.add_traceback(" in text
    assert "except (ValueError" not in text.partition("def main(")[2]


CALLS = {
    "train.py": ["--config", "none.yaml"],
    "evaluate.py": ["ckpt=none"],
    "shards/build.py": ["sede=1"],
    "shards/check.py": ["none.tar"],
    "shards/build_tiny.py": ["root=/dev/null/x"],
    "gp/__main__.py": ["trian"],
    "gp/commands/shards.py": ["biuld"],
    "gp/convert.py": ["none", "out"],
    "gp/bench/__main__.py": ["prefill", "--preset", "none"],
    "gp/embedded/making/evaluate.py": ["--num-questions", "0"],
}


@pytest.mark.parametrize("program", CALLS)
def test_a_mistake_in_every_program(program, capsys):
    main = runpy.run_path(str(ROOT / program))["main"]
    assert main(CALLS[program]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    with pytest.raises(cli.MISTAKES):
        main([*CALLS[program], "--traceback"])


def test_a_program_ends_with_the_status():
    call = [sys.executable, "train.py", "--config", "none.yaml"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: config none.yaml: no such file\n")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("/home/me/gp/evaluate.py", "python train.py --config configs/tiny.yaml"),
        ("/venv/bin/gp-train", "gp-train --config tiny"),
        (str(ROOT / "gp/__main__.py"), "python train.py --config configs/tiny.yaml"),  # in a clone
    ],
)
def test_messages_name_the_command_as_it_was_started(program, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program])
    assert cli.as_typed("python train.py --config configs/tiny.yaml") == expected


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("train.py", "python train.py 'a b'"),
        ("/venv/bin/gp-train", "gp-train 'a b'"),
        (str(ROOT / "gp/__main__.py"), "python -m gp 'a b'"),
        (str(ROOT / "gp/commands/train.py"), "python -m gp.commands.train 'a b'"),
    ],
)
def test_the_command_line_can_be_run_again(program, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "a b"])
    assert cli.command_line() == expected
