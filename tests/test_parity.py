"""The shipped cases of the original implementation match; a difference or a case that cannot run fails the program."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import parity
from tests.parity import find_cases, main

pytestmark = pytest.mark.core

GOLDEN = Path(__file__).parent / "golden"


def test_shipped_cases_match(capsys):
    assert main([str(GOLDEN)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("0 mismatches, 0 cases not run")
    assert len({line.split()[0] for line in lines[:-1]}) == len(find_cases(GOLDEN)) >= 2


@pytest.fixture
def copied(tmp_path):
    return Path(shutil.copytree(GOLDEN / "q10_train", tmp_path / "case"))


def test_a_mismatch_fails(copied, capsys):
    numbers = json.loads((copied / "expected.json").read_text())
    (copied / "expected.json").write_text(json.dumps({**numbers, "le_loss": numbers["le_loss"] + 1e-3}))
    assert main([str(copied.parent)]) == 1
    assert "loss_answer" in (out := capsys.readouterr().out) and "MISMATCH" in out


def test_a_wrong_mask_fails(tmp_path, capsys):
    case = Path(shutil.copytree(GOLDEN / "q03_batch3_left_padding", tmp_path / "case"))
    expected = load_file(case / "expected.safetensors")
    expected["image_token_bool_mask.0"] = ~expected["image_token_bool_mask.0"]
    save_file(expected, case / "expected.safetensors")
    assert main([str(tmp_path)]) == 1
    assert any("keep_mask" in line and "MISMATCH" in line for line in capsys.readouterr().out.splitlines())


def test_a_case_that_cannot_run_fails(copied, capsys):
    info = json.loads((copied / "case.json").read_text())
    (copied / "case.json").write_text(json.dumps({**info, "family": "other"}))
    assert main([str(copied.parent)]) == 1
    assert "NOT RUN" in (out := capsys.readouterr().out) and "1 cases not run" in out


def test_an_empty_folder_is_an_error(tmp_path):
    assert main([str(tmp_path)]) == 2


def test_rounding_of_float32_is_told_from_a_fault(copied, monkeypatch, capsys):
    """A float32 run that is off by rounding passes by its float64 run; one that is off in both does not."""
    run_case = parity.run_case

    def rounded(folder, dtype):
        off = 5e-4 if dtype == torch.float32 else 0.0
        for check in run_case(folder, dtype):
            yield replace(check, difference=check.difference + (off if check.quantity == "importance_logits" else 0))

    monkeypatch.setattr(parity, "run_case", rounded)
    assert main([str(copied.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.endswith("ok in float64")] == ["importance_logits"]
    assert lines[-2].startswith("1 quantities agree in float64 only")
