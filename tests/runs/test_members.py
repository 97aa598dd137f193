"""Commands one after the other: their status becomes this command's, and an end from outside reaches them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from gp.cli import Stop
from gp.runs.members import refuse_launcher, run_command

PARENT = """
import sys
from pathlib import Path
from gp import cli
from gp.runs.members import run_command
sys.exit(cli.run(lambda: run_command(Path(sys.argv[1]), [], "run 1", "go on")))
"""
CHILD = """
import os, signal, sys, time
from pathlib import Path
def end(*_):
    Path(sys.argv[0]).with_name("ended").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
Path(sys.argv[0]).with_name("started").touch()
time.sleep(60)
"""


def script(folder, text):
    path = folder / "child.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "status"), [("import sys; sys.exit(2)", 2), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_a_failure_is_named_and_gives_its_status(tmp_path, text, status):
    with pytest.raises(Stop) as stop:
        run_command(script(tmp_path, text), [], "run 2 of 3, seed=1", "the same command goes on")
    assert stop.value.status == status
    assert stop.value.line.startswith("run 2 of 3, seed=1 ended with status") and stop.value.line.endswith("goes on")
    run_command(script(tmp_path, "import sys; assert sys.argv[1:] == ['a']"), ["a"], "", "")


def test_sigterm_ends_the_one_at_work(tmp_path):
    call = [sys.executable, "-c", PARENT, str(script(tmp_path, CHILD))]
    process = subprocess.Popen(call, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    limit = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143 and (tmp_path / "ended").exists()
    assert process.stderr.read() == "terminated\n"


def test_a_launcher_is_refused(monkeypatch):
    refuse_launcher("sweep")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ValueError, match="sweep: one command of several runs"):
        refuse_launcher("sweep")
