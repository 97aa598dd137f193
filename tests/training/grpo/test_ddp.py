"""Two processes with two micro-batches each do what one process does: draws, gradients and figures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.micro_run import save_base

pytest.importorskip("peft")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `plus_ddp_script` found with one process and with two."""
    folder = tmp_path_factory.mktemp("ddp")
    base = save_base(folder / "base")
    for count in (1, 2):
        (folder / str(count)).mkdir()
        command = [sys.executable, "-m", "tests.support.plus_ddp_script", str(folder / str(count)), str(count), base]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["sequence", "token"])
def test_equal_to_one_process(found, aggregation):
    one, two = (torch.load(found / str(count) / f"{aggregation}.pt") for count in (1, 2))
    assert one["gradients"].keys() == two["gradients"].keys()
    largest = max(float(value.abs().max()) for value in one["gradients"].values())
    assert largest > 0 and one["figures"]["train/no_signal"] < 1 and one["figures"]["train/kl"] > 0
    for name, expected in one["gradients"].items():
        assert float((two["gradients"][name] - expected).abs().max()) < 1e-5 * largest, name
    for figures in (one["figures"], two["figures"]):
        figures.pop("train/lr", None)
    assert two["figures"] == pytest.approx(one["figures"], rel=1e-4, abs=1e-6)
