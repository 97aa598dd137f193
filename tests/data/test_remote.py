"""Shards that are not files here: over http and from commands."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from threading import Thread

import pytest

from gp.data.counts import sample_counts
from gp.data.epoch import EpochReader
from gp.data.manifest import MANIFEST, openable, read_manifest
from gp.data.position import first_positions
from gp.data.shards import resolve_shards
from gp.data.stream import EvalStream, TrainStream
from tests.support.small_shards import add_manifest, number_of, write_shards

SIZES = [5, 3, 4]
TOTAL = sum(SIZES)


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    """A folder of shards and its url."""
    add_manifest(write_shards(tmp_path, SIZES), SIZES)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(tmp_path))) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield tmp_path, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_an_epoch_over_http(server):
    folder, url = server
    shards = resolve_shards([url + "/s{0..2}.tar"], folder)
    counts = sample_counts(shards)
    assert counts == SIZES
    reader = EpochReader(shards, 0, 3, counts)
    seen = []
    for position in first_positions(3):
        stream = TrainStream(reader, [position], batch_size=1, max_skipped_fraction=0)
        seen += [number_of(sample) for raw in islice(stream, TOTAL // 3) for sample in raw.samples]
    assert sorted(seen) == list(range(TOTAL))
    local = EvalStream(resolve_shards(["s{0..2}.tar"], folder))
    ids = [[sample.id for drawn in stream for sample in drawn.samples] for stream in (local, EvalStream(shards))]
    assert ids[0] == ids[1]


def test_a_missing_manifest_is_no_error_and_a_lost_server_is_one(server):
    folder, url = server
    assert read_manifest(url).shards.keys() == {"s0.tar", "s1.tar", "s2.tar"}
    (folder / MANIFEST).unlink()
    assert sample_counts([f"{url}/s0.tar", f"{url}/s1.tar?token=1"]) is None
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:9/manifest\.json: "):
        read_manifest("http://127.0.0.1:9")


def test_a_missing_shard_is_named(server):
    _, url = server
    with pytest.raises(ValueError, match=r"http://127.*/gone\.tar"):
        list(EvalStream([f"{url}/gone.tar"]))


def test_commands(tmp_path):
    shards = write_shards(tmp_path, SIZES)
    commands = resolve_shards([f"pipe:cat {tmp_path}/s{{0..2}}.tar"], tmp_path, allow_pipes=True)
    add_manifest(shards, SIZES)
    assert sample_counts(commands) is None  # nobody knows what a command reads
    seen = [number_of(sample) for drawn in EvalStream(commands, batch_size=4) for sample in drawn.samples]
    assert seen == list(range(TOTAL))


def test_object_storage_is_read_by_its_own_client():
    assert openable("s3://bucket/a b.tar") == "pipe:aws s3 cp 's3://bucket/a b.tar' -"
    assert openable("gs://bucket/a.tar") == "gs://bucket/a.tar"
