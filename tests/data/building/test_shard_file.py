"""A shard is byte for byte what tarfile writes, and is as long and as hashed as its state says."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile

import pytest

from gp.data.building import shard_file
from gp.data.building.shard_file import ShardFile, ShardState

RECORDS = [(random.Random(size).randbytes(size), b'{"n": %d}' % size) for size in (0, 1, 511, 512, 513, 9000, 70000)]


def expected() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (image, row) in enumerate(RECORDS):
            for name, data in ((f"{number:06d}.webp", image), (f"{number:06d}.json", row)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("write_behind", [1, 1000, 1 << 20])
def test_bytes(tmp_path, monkeypatch, write_behind):
    monkeypatch.setattr(shard_file, "WRITE_BEHIND", write_behind)
    path, state = tmp_path / "x.tar", ShardState()
    for record in RECORDS:  # left and taken up again behind each
        shard = ShardFile(path, state)
        shard.add(record[0], "webp", [record[1]])
        state = shard.left_here()
    shard = ShardFile(path, state)
    shard.end()
    state = shard.close()
    assert path.read_bytes() == expected()
    assert (state.bytes, state.images) == (len(expected()), len(RECORDS))
    assert state.sha256 == hashlib.sha256(expected()).hexdigest()


def test_a_member_that_no_header_can_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_file, "MAX_SIZE", 100)
    with pytest.raises(ValueError, match=r"000000\.jpg: .*100 bytes, .*101"):
        ShardFile(tmp_path / "x.tar", ShardState()).add(bytes(101), "jpg", [b"{}"])
