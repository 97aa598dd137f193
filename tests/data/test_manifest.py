"""The manifest of a folder of shards: merging, damage, and where it is looked for."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from gp.data.manifest import MANIFEST, ShardEntry, check_shard, manifest_place, read_manifest, update_manifest
from tests.support.small_shards import write_shards


def entry(set_name: str, samples: int = 3) -> ShardEntry:
    return ShardEntry(set_name, samples, samples, 10240, "0" * 64)


def test_sets_share_a_folder_and_replace_their_own_entries(tmp_path):
    assert read_manifest(tmp_path) is None
    update_manifest(tmp_path, "a", {"a-0.tar": entry("a"), "a-1.tar": entry("a")}, {"samples": 6})
    update_manifest(tmp_path, "b", {"b-0.tar": entry("b")}, {"samples": 3})
    update_manifest(tmp_path, "a", {"a-0.tar": entry("a", 4)}, {"samples": 4})
    manifest = read_manifest(str(tmp_path))
    assert manifest.shards == {"a-0.tar": entry("a", 4), "b-0.tar": entry("b")}
    assert manifest.sets == {"a": {"samples": 4}, "b": {"samples": 3}}
    assert json.loads((tmp_path / MANIFEST).read_text())["format"] == 1
    assert {path.name for path in tmp_path.iterdir()} <= {MANIFEST, ".manifest.lock"}
    with pytest.raises(ValueError, match=r"x\.tar .*'b'.*'a'"):
        update_manifest(tmp_path, "a", {"x.tar": entry("b")}, {})


def _add(folder: Path, name: str) -> None:
    update_manifest(folder, name, {f"{name}.tar": entry(name)}, {})


def test_several_builds_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    builds = [context.Process(target=_add, args=(tmp_path, f"s{number}")) for number in range(8)]
    for build in builds:
        build.start()
    for build in builds:
        build.join()
    assert set(read_manifest(tmp_path).shards) == {f"s{number}.tar" for number in range(8)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a manifest"),
        ("[]", "not a manifest"),
        ("{}", "no 'format'"),
        ('{"format": 2}', "expected format 1, got 2"),
        ('{"format": 1, "shards": {"a.tar": {"set": "a"}}, "sets": {}}', "no 'samples'"),
        (
            '{"format": 1, "sets": {}, "shards": {"a": {"set": "a", "samples": "9", "images": 1, "bytes": 1, '
            '"sha256": ""}}}',
            "whole numbers",
        ),
    ],
)
def test_what_is_no_manifest_is_named(tmp_path, text, message):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ValueError, match=rf"{MANIFEST}: .*{message}"):
        read_manifest(tmp_path)


def test_a_changed_shard_is_found(tmp_path):
    path = Path(write_shards(tmp_path, [2])[0])
    good = ShardEntry("s", 2, 2, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    check_shard(path, good)
    with pytest.raises(ValueError, match=rf"s0\.tar.*{MANIFEST} .*\b7 bytes, .*\b{good.bytes}"):
        check_shard(path, replace(good, bytes=7))
    content = path.read_bytes()
    path.write_bytes(content[:600] + bytes([content[600] ^ 1]) + content[601:])
    with pytest.raises(ValueError, match=rf"s0\.tar.*{MANIFEST} .*SHA-256 {good.sha256}"):
        check_shard(path, good)


def test_place_of_a_manifest():
    assert manifest_place("/a/b") == "/a/b/manifest.json"
    assert manifest_place("https://h/a?token=b/c") == "https://h/a/manifest.json?token=b/c"
