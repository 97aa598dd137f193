"""Attention kernels against the reference."""

from __future__ import annotations

import pytest
import torch

from gp.doctor import kernels
from gp.doctor.kernels import Outcome
from gp.doctor.report import NOTE, OK, PROBLEM
from tests.support.doctor_lines import by_name


def outcome(tokens=(4, 6, 2), shift=0.0, dropped=()):
    logits = torch.eye(3, 8) + shift
    keep_mask = torch.ones(2, 2, dtype=torch.bool)
    for place in dropped:
        keep_mask[place] = False
    return Outcome(torch.tensor(tokens), logits, keep_mask)


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (outcome(), OK),
        (outcome(shift=1e-3), OK),
        (outcome(tokens=(4, 7, 2)), PROBLEM),
        (outcome(dropped=[(0, 1)]), PROBLEM),
        (outcome(shift=float("nan")), PROBLEM),
    ],
)
def test_a_kernel_is_compared_with_eager(found, status):
    assert kernels.compare("sdpa", found, outcome()).status == status


def test_a_kernel_that_fails_stops_no_other(monkeypatch):
    def run(kernel, device, dtype):
        if kernel == "eager":
            raise RuntimeError("no kernel image is available")
        return outcome()

    monkeypatch.setattr(kernels, "run", run)
    lines = by_name(kernels.check)
    assert lines["eager"].status == PROBLEM and "no kernel image" in lines["eager"].text
    assert lines["sdpa"].status == OK and "compare" in lines["sdpa"].text
    assert lines["sdpa: math"].status == OK


def test_flash_attention_is_tried_where_it_can_run(monkeypatch):
    monkeypatch.setattr(kernels, "installed_version", lambda name: "2.8" if name == "flash-attn" else None)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert "needs a CUDA device" in kernels.describe("flash_attention_2", cpu, torch.float32, {}).text
    assert kernels.describe("flash_attention_3", cuda, torch.bfloat16, {}).status == NOTE
    monkeypatch.setattr(kernels, "run", lambda *where: outcome(tokens=(4, 7, 2)))
    assert kernels.describe("flash_attention_2", cuda, torch.bfloat16, {"eager": outcome()}).status == PROBLEM
