"""Checkpoints of runs, read back the same way for going on and for evaluating."""

from __future__ import annotations

import pytest
import torch

from gp.runs.checkpoint import TRAINED, read_checkpoint, trained_parts
from gp.runs.resuming import NOTE

BASE = {"model_type": "qwen2_5_vl", "hidden_size": 64}
MEANING = {"glimpse": {"prune_layer": 2}, "vip": {"taps": [3, 1]}}
EXPECTED = {"a": torch.zeros(2, 4), "b": torch.zeros(1)}


def checkpoint(**parts: torch.Tensor) -> dict:
    state = {f"{TRAINED}{name}": value for name, value in parts.items()}
    return {"state_dict": state, "global_step": 3, NOTE: {"base": {"name": "a", **BASE}, "parts": MEANING}}


def test_what_was_written_is_read(tmp_path):
    torch.save(checkpoint(a=torch.ones(2, 4), b=torch.ones(1)), tmp_path / "last.ckpt")
    parts = trained_parts(read_checkpoint(tmp_path / "last.ckpt"), BASE, MEANING, EXPECTED, "last.ckpt")
    assert parts.keys() == EXPECTED.keys() and all(bool((value == 1).all()) for value in parts.values())


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (checkpoint(a=torch.zeros(2, 3), b=torch.zeros(1)), ("a", "(2, 3)", "(2, 4)")),
        (checkpoint(a=torch.zeros(2, 4)), ("b", "missing")),
        (checkpoint(a=torch.zeros(2, 4), b=torch.zeros(1), c=torch.zeros(1)), ("c", "unknown")),
        (checkpoint(), (TRAINED, "nothing")),
        ({**checkpoint(**EXPECTED), NOTE: {}}, ("which base",)),
        ({**checkpoint(**EXPECTED), NOTE: {"base": {**BASE, "hidden_size": 8}}}, ("hidden_size", "8", "64")),
        ({**checkpoint(**EXPECTED), NOTE: {"base": BASE}}, ("meaning",)),
        (
            {**checkpoint(**EXPECTED), NOTE: {"base": BASE, "parts": {**MEANING, "vip": {"taps": [1, 3]}}}},
            ("vip.taps", "[1, 3] there", "[3, 1] here"),
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(found, named):
    with pytest.raises(ValueError) as error:
        trained_parts(found, BASE, MEANING, EXPECTED, "here.ckpt")
    assert all(word in str(error.value) for word in ("here.ckpt", *named))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", {"state_dict": {}}, [1], {"state_dict": pytest.raises}])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "last.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        read_checkpoint(path)


def test_flipped_bytes_are_found(tmp_path):
    """Wherever a byte changes, the file is refused, or nothing that is read from it has changed."""
    path = tmp_path / "last.ckpt"
    torch.manual_seed(0)
    torch.save(checkpoint(a=torch.randn(20, 40), b=torch.randn(1)), path)
    whole, bytes_ = read_checkpoint(path), path.read_bytes()
    refused = 0
    for place in range(0, len(bytes_), 13):
        path.write_bytes(bytes_[:place] + bytes([bytes_[place] ^ 0x10]) + bytes_[place + 1 :])
        try:
            found = read_checkpoint(path)
        except ValueError as error:
            refused += "last.ckpt" in str(error)
        else:
            assert found["global_step"] == whole["global_step"] and found[NOTE] == whole[NOTE]
            assert all(torch.equal(value, whole["state_dict"][name]) for name, value in found["state_dict"].items())
    assert refused > 3200 / 13  # the weights alone
