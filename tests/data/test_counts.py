"""How many samples shards hold, from the manifests beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gp.data.counts import find_entries, sample_counts
from gp.data.manifest import ShardEntry, update_manifest
from tests.support.small_shards import add_manifest, write_shards


def test_counts_come_from_the_manifests_of_all_folders(tmp_path, caplog):
    shards = []
    for name, sizes in {"a": [2, 3], "b": [4]}.items():
        (tmp_path / name).mkdir()
        shards += write_shards(tmp_path / name, sizes)
        add_manifest(shards[-len(sizes) :], sizes)
    assert sample_counts([shards[2], *shards]) == [4, 2, 3, 4]
    (tmp_path / "c").mkdir()
    more = [*shards, *write_shards(tmp_path / "c", [1])]
    assert sample_counts(more) is None
    assert "1 of 4 shards are in no manifest" in caplog.text and "c/s0.tar" in caplog.text
    assert sample_counts(more[3:]) is None and find_entries(["pipe:cat x.tar"]) == [None]


def test_a_shard_of_another_size_than_its_manifest_says(tmp_path):
    shards = write_shards(tmp_path, [2, 3])
    add_manifest(shards, [2, 3])
    Path(shards[1]).write_bytes(Path(shards[1]).read_bytes()[:-512])
    with pytest.raises(ValueError, match=r"s1\.tar: .*manifest\.json .*\d+ bytes, .*\d+"):
        sample_counts(shards)


def test_an_unfinished_set_is_noticed(tmp_path, caplog):
    shards = write_shards(tmp_path, [2])
    add_manifest(shards, [2])
    update_manifest(tmp_path, "other", {"o.tar": ShardEntry("other", 3, 3, 10240, "0" * 64)}, {"complete": False})
    assert sample_counts(shards) == [2]
    assert "set other is not complete" in caplog.text
