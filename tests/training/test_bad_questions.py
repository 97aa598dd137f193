"""A question that no processor reads ends no run: training skips it by name and goes on, on one process and on two."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.support.micro_run import save_base, write_config
from tests.support.small_shards import write_tar
from tests.support.train_command import finish, start


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_marked_question_is_skipped_in_training_and_validation(tmp_path, devices):
    """One in every shard, so that both processes meet one."""
    write_config(tmp_path, save_base(tmp_path / "base"))
    for shard in ("train0", "train1", "val"):
        mark_one(tmp_path / f"{shard}.tar")
    options = ["data.max_skipped_fraction=0.5", "optim.max_steps=6", f"trainer.devices={devices}"]
    status, _, errors = finish(start(tmp_path, *options))
    assert status == 0, errors
    assert "image marker in a text" in errors and "<|image_pad|>" in errors
    assert (tmp_path / "runs/micro/last.ckpt").is_file()


def mark_one(path: Path) -> None:
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    name = sorted(name for name in files if name.endswith(".json"))[1]
    fields = json.loads(files[name])
    files[name] = json.dumps({**fields, "question": "what is <|image_pad|> here ?"}).encode()
    write_tar(path, files)
