"""From config entries to shards, and from shards to raw records."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from gp.data.sample import BadSample, parse_record
from gp.data.shards import read_records, resolve_shards, shard_names
from tests.support.small_shards import add_manifest, fields, image_bytes, write_shards, write_tar


def test_braces_relative_to_root(tmp_path):
    shards = write_shards(tmp_path, [1, 1, 1])
    assert resolve_shards(["s{0..2}.tar"], tmp_path) == shards
    assert resolve_shards(["s2.tar", shards[0]], tmp_path) == [shards[2], shards[0]]


def test_wildcards_are_sorted_and_must_match(tmp_path):
    shards = write_shards(tmp_path, [1] * 3)
    assert resolve_shards(["s*.tar"], tmp_path) == resolve_shards([f"{tmp_path}/s?.tar"], "/") == shards
    assert resolve_shards(["s[02].tar", "{s1,s*}.tar"], tmp_path) == [shards[0], shards[2], shards[1], *shards]
    with pytest.raises(FileNotFoundError, match=r"x\*\.tar: no file matches"):
        resolve_shards(["x*.tar"], tmp_path)


def test_wildcards_do_not_overlook_a_lost_shard(tmp_path):
    shards = write_shards(tmp_path, [1] * 3)
    add_manifest(shards, [1] * 3)
    assert resolve_shards(["s*.tar"], tmp_path) == shards
    Path(shards[1]).unlink()
    assert resolve_shards(["s2*.tar"], tmp_path) == shards[2:]
    with pytest.raises(FileNotFoundError, match=r"s1\.tar: .*manifest.*no such file"):
        resolve_shards(["s*.tar"], tmp_path)


def test_urls_and_commands_are_left_alone(tmp_path):
    entries = ["http://host/a-{00..01}.tar", "pipe:cat /x/{a,b}.tar", "hf://org/set/c.tar", "gs://bucket/d.tar"]
    expected = ["http://host/a-00.tar", "http://host/a-01.tar", "pipe:cat /x/a.tar", "pipe:cat /x/b.tar", *entries[2:]]
    assert resolve_shards(entries, tmp_path, allow_pipes=True) == expected


@pytest.mark.parametrize("entry", ["pipe:cat x.tar", "PIPE:cat x.tar", "Pipe:touch /tmp/x"])
def test_commands_are_refused_unless_allowed(tmp_path, entry):
    with pytest.raises(ValueError, match=r"a command.*data\.allow_pipes=true"):
        resolve_shards([entry], tmp_path)


@pytest.mark.parametrize("name", ["pipe:touch ran; cat x.tar", "http:y.tar", "z#1.tar", "q?a=1.tar"])
def test_a_local_file_is_one_whatever_its_name(tmp_path, monkeypatch, name):
    (shard,) = write_shards(tmp_path, [2])
    Path(shard).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(read_records(name, "s"))) == 2
    assert not (tmp_path / "ran").exists()


def test_embedded_data_are_built_at_need(tmp_path, monkeypatch):
    import gp.data.card_shards as card_shards

    asked = []

    def ensure(root, name):
        asked.append((root, name))
        return [Path(root) / f"{name}-000000.tar"]

    monkeypatch.setattr(card_shards, "ensure_card_shards", ensure)
    assert resolve_shards(["tiny:val@8x8"], tmp_path) == [str(tmp_path / "tiny" / "val@8x8-000000.tar")]
    assert asked == [(tmp_path / "tiny", "val@8x8")]


def test_an_unknown_split_of_the_embedded_data_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"'tset'.*train, val"):
        resolve_shards(["tiny:tset"], tmp_path)


def test_missing_shards_are_named(tmp_path):
    write_shards(tmp_path, [1])
    with pytest.raises(FileNotFoundError, match=r"s1\.tar: no such file .*\b1 .*\b3 .*s\{0\.\.2\}\.tar"):
        resolve_shards(["s{0..2}.tar"], tmp_path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [([], "no shards"), ([" "], "empty shard pattern"), (["s{0..2.tar"], "braces"), ("s0.tar", "list of shards")],
)
def test_bad_entries(tmp_path, entries, message):
    with pytest.raises(ValueError, match=message):
        resolve_shards(entries, tmp_path)


def test_names_are_as_short_as_they_can_be():
    assert shard_names(["/a/b/x-0.tar", "/a/b/x-1.tar"]) == ["x-0", "x-1"]
    assert shard_names(["/a/gqa/0.tar", "/a/dude/0.tar"]) == ["gqa/0", "dude/0"]
    assert shard_names(["http://h/x.tar?key=1", "pipe:curl -s 'http://h/y.tar?k=2' | cat -"]) == ["x", "y"]


def test_records(tmp_path):
    shard = write_shards(tmp_path, [3])[0]
    records = list(read_records(shard, "s0"))
    assert [r.id for r in records] == ["s0/0000", "s0/0001", "s0/0002"]
    assert set(records[0].files) == {"jpg", "json"} and records[0].files["jpg"] == image_bytes()
    assert records[1].where == f"shard {shard}, key 0001"


def test_several_questions_of_one_image_are_records_that_share_its_bytes(tmp_path):
    asked = [fields(question="red ?"), fields(question="blue ?", answer="blue")]
    one = {"a.jpg": image_bytes(), "a.json": json.dumps(asked).encode()}
    other = {"b.jpg": image_bytes(), "b.json": json.dumps(fields()).encode()}
    records = list(read_records(write_tar(tmp_path / "d.tar", {**one, **other}), "d"))
    assert [record.id for record in records] == ["d/a.0", "d/a.1", "d/b"]
    assert records[0].files["jpg"] is records[1].files["jpg"]
    samples = [parse_record(record) for record in records]
    assert [(s.id, s.question, s.answer) for s in samples[:2]] == [
        ("d/a.0", "red ?", "red"),
        ("d/a.1", "blue ?", "blue"),
    ]


@pytest.mark.parametrize(("text", "count"), [("[]", 1), ("[1, 2]", 2), ("[{]", 1), ('["a", {}]', 2)])
def test_lists_that_are_not_questions_become_bad_samples(tmp_path, text, count):
    shard = write_tar(tmp_path / "d.tar", {"a.jpg": image_bytes(), "a.json": text.encode()})
    records = list(read_records(shard, "d"))
    assert len(records) == count
    for record in records:
        with pytest.raises(BadSample, match=r"wrong json|missing field"):
            parse_record(record)


def test_records_of_a_command(tmp_path):
    shard = write_shards(tmp_path, [2])[0]
    assert [r.key for r in read_records(f"pipe:cat {shard}", "s0")] == ["0000", "0001"]


def test_failing_command_is_an_error(tmp_path):
    shard = write_shards(tmp_path, [2])[0]
    with pytest.raises(ValueError, match="pipe:"):
        list(read_records(f"pipe:cat {shard}; exit 3", "s0"))


def test_truncated_anywhere_is_an_error(tmp_path):
    """Cut at every block: in data, in a header, exactly between two files, and within the end marker."""
    whole = Path(write_shards(tmp_path, [3])[0]).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 1024  # the last file's data end before it
    cut = tmp_path / "cut.tar"
    for size in [*range(0, end, 512), 700, 512 * 3 + 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"shard .*cut\.tar: truncated"):
            list(read_records(str(cut), "cut"))


def test_no_tar_compressed_tar_and_two_tars_are_errors(tmp_path):
    whole = Path(write_shards(tmp_path, [2])[0]).read_bytes()
    for name, content in {"text": b"hello" * 1000, "gz": gzip.compress(whole), "two": whole + whole}.items():
        shard = tmp_path / f"{name}.tar"
        shard.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.tar: truncated"):
            list(read_records(str(shard), name))


def test_missing_shard(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.tar"):
        list(read_records(str(tmp_path / "gone.tar"), "gone"))


def test_same_file_twice_in_a_shard(tmp_path):
    shard = tmp_path / "d.tar"
    write_tar(shard, {"a.jpg": b"1", "a.JPG": b"2"})
    with pytest.raises(ValueError, match=r"d\.tar.*duplicate"):
        list(read_records(str(shard), "d"))
