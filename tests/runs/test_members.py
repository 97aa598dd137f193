"""Commands one after the other: their status becomes this command's, and an end from outside reaches them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gp
from gp.cli import Stop
from gp.runs.members import refuse_launcher, run_command

PARENT = """
import sys
from gp import cli
from gp.runs.members import run_command
sys.exit(cli.run(lambda: run_command("child", [], "run 1", "go on")))
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


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Writes the module `child`, which `python -m` finds in the working folder."""
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "child.py").write_text


@pytest.mark.parametrize(
    ("text", "status"), [("import sys; sys.exit(2)", 2), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_a_failure_is_named_and_gives_its_status(write_module, text, status):
    write_module(text)
    with pytest.raises(Stop) as stop:
        run_command("child", [], "run 2 of 3, seed=1", "the same command goes on")
    assert stop.value.status == status
    assert stop.value.line.startswith("run 2 of 3, seed=1 ended with status") and stop.value.line.endswith("goes on")
    write_module("import sys; assert sys.argv[1:] == ['a']")
    run_command("child", ["a"], "", "")


def test_gp_is_found_from_any_folder_without_being_installed(write_module, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    write_module(f"import gp; assert gp.__file__ == {gp.__file__!r}")
    run_command("child", [], "", "")


def test_sigterm_ends_the_one_at_work(tmp_path, write_module):
    write_module(CHILD)
    root = str(Path(gp.__file__).parents[1])
    call = [sys.executable, "-c", PARENT]
    process = subprocess.Popen(call, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root})
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
