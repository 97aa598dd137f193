"""Task `gate` on two gloo processes gives the head of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gp.training import train as runs
from tests.support.bases import BASES
from tests.support.micro_run import write_config

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300


@pytest.mark.slow
def test_two_processes_train_the_head_of_one(tmp_path):
    base = BASES["qwen2_5_vl"](tmp_path / "base")
    torch.manual_seed(0)
    glimpse = runs.build_model(write_config(tmp_path / "parts", base)).save_pretrained(tmp_path / "glimpse")
    found = {}
    for count in (1, 2):
        folder = tmp_path / f"on{count}"
        command = [sys.executable, "-m", "tests.support.gate_ddp_script", str(folder), str(count), base, str(glimpse)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr[-20000:]
        found[count] = torch.load(folder / "weights.pt")
    one, two = found[1], found[2]
    assert 0 < one["figures"]["val/glance_accuracy"] < 1  # right and wrong ones
    assert two["figures"] == pytest.approx(one["figures"], abs=1e-6)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    for name, expected in one["weights"].items():
        assert float(expected.abs().max()) > 0
        torch.testing.assert_close(two["weights"][name], expected, rtol=1e-4, atol=1e-6)
