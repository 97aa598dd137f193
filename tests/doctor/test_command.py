"""`python -m gp.doctor` as users run it, in an environment that works and in one that does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from gp.doctor.report import OK, PROBLEM

ROOT = Path(__file__).resolve().parents[2]


def run_doctor(folder, *options, path=()):
    """Runs the command in a folder outside the repository."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT]))}
    command = [sys.executable, "-m", "gp.doctor", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def lines_of(run):
    sections = json.loads(run.stdout)["sections"]
    return {section["name"]: {line["name"]: line for line in section["lines"]} for section in sections}


def test_it_finds_this_installation_well(tmp_path):
    run = run_doctor(tmp_path, "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    found = lines_of(run)
    assert found.keys() == {"host", "libraries", "disk", "devices", "question", "kernels", "imports"}
    assert version("transformers") in found["libraries"]["transformers"]["text"]
    assert found["question"]["tiny"]["status"] == OK
    assert {found["kernels"][name]["status"] for name in ("eager", "sdpa", "sdpa: math")} == {OK}
    assert found["imports"]["import"]["status"] == OK
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_it_says_what_it_can_where_a_library_is_broken(tmp_path, library):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / f"{library}.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')")
    run = run_doctor(tmp_path, path=[broken])
    assert run.returncode == 1, run.stdout + run.stderr
    assert version(library) in run.stdout and "python " in run.stdout
    assert f"FAIL  {library:<20} OSError: libcudart.so.12: cannot open shared object file" in run.stdout
    assert "GiB free" in run.stdout, "the other checks went on"
    assert "problem" in run.stdout.splitlines()[-1] and f"imports/{library}" in run.stdout.splitlines()[-1]


@pytest.mark.gpu
def test_kernels_run_on_a_gpu(tmp_path):
    found = lines_of(run_doctor(tmp_path, "--json"))
    assert found["devices"].keys() >= {"cpu", "cuda", "cuda:0"}
    assert "cuda" in found["kernels"]["tried on"]["text"]
    assert not [line for line in found["kernels"].values() if line["status"] == PROBLEM]
