"""What is said of the machine and the code is true."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from gp.measure import machine


def test_cores_and_memory():
    assert 1 <= machine.usable_cores() <= os.cpu_count()
    assert f"{machine.usable_cores()} CPU cores" in machine.device_name(torch.device("cpu"))
    assert machine.processor_name() in machine.device_name()
    total, available = machine.memory_gib()
    assert total is None or (0.25 < total < 1e5 and (available is None or 0 < available <= total))


def test_a_gpu_is_called_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"name of {device}")
    assert machine.device_name("cuda:1") == machine.device_name(torch.device("cuda:1")) == "name of cuda:1"


def test_versions():
    versions = machine.library_versions()
    assert set(versions) == {"python", "torch", "transformers", "lightning"}
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_no_commit_outside_the_repository(monkeypatch):
    answers = {"rev-parse": "abc", "status": " M file"}
    monkeypatch.setattr(machine, "_git", lambda folder, command, *rest: answers.get(command))
    assert machine.code_commit() == {"commit": None, "dirty": None}  # this file is not tracked
    answers["ls-files"] = "__init__.py"
    assert machine.code_commit() == {"commit": "abc", "dirty": True}
    answers["status"] = ""
    assert machine.code_commit() == {"commit": "abc", "dirty": False}


def test_it_needs_no_library():
    code = "import sys, gp.measure.machine as m; m.device_name(), m.code_commit(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
