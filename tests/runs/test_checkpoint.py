"""Checkpoints of runs, read back the same way for going on and for evaluating."""

from __future__ import annotations

import pytest
import torch

from gp.runs.checkpoint import NOTE, TRAINED, read_checkpoint, trained_parts

BASE = {"model_type": "qwen2_5_vl", "hidden_size": 64}
EXPECTED = {"a": torch.zeros(2, 4), "b": torch.zeros(1)}


def checkpoint(**parts: torch.Tensor) -> dict:
    state = {f"{TRAINED}{name}": value for name, value in parts.items()}
    return {"state_dict": state, "global_step": 3, NOTE: {"base": {"name": "a", **BASE}}}


def test_what_was_written_is_read(tmp_path):
    torch.save(checkpoint(a=torch.ones(2, 4), b=torch.ones(1)), tmp_path / "last.ckpt")
    parts = trained_parts(read_checkpoint(tmp_path / "last.ckpt"), BASE, EXPECTED, "last.ckpt")
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
    ],
)
def test_parts_that_do_not_fit_are_refused(found, named):
    with pytest.raises(ValueError) as error:
        trained_parts(found, BASE, EXPECTED, "here.ckpt")
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
