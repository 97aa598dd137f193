"""Which records a stream reads in an epoch, and in which order, where a manifest tells the counts."""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain, islice
from random import Random

import pytest

from gp.data import epoch as epoch_module
from gp.data.epoch import Buckets, EpochReader
from gp.data.position import Span, deal_again, first_positions
from gp.data.stream import TrainStream
from tests.support.small_shards import fields, number_of, write_shards, write_tar

SIZES = [5, 3, 6, 4, 2, 4]
TOTAL = sum(SIZES)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("good"), SIZES)


def keys(reader: EpochReader, span: Span) -> list[int]:
    return [int(record.key) for record in reader.records(span)]


def epoch_of(reader: EpochReader, epoch: int, num_streams: int) -> list[list[int]]:
    return [keys(reader, Span(epoch, number, num_streams)) for number in range(num_streams)]


@pytest.mark.parametrize("num_streams", [1, 2, 3, 5, 7, 11, 24])
def test_equal_counts_and_each_record_once_up_to_the_remainder(shards, num_streams):
    reader = EpochReader(shards, 0, 4, SIZES)
    for epoch in range(3):
        streams = epoch_of(reader, epoch, num_streams)
        assert {len(stream) for stream in streams} == {TOTAL // num_streams}
        seen = list(chain(*streams))
        assert len(set(seen)) == len(seen) == TOTAL - TOTAL % num_streams


def test_equal_shards_are_dealt_as_without_a_manifest(tmp_path):
    """As many in each hand: laying the hands end to end changes nothing."""
    shards = write_shards(tmp_path, [3, 3, 3, 3])
    for num_streams in (1, 2, 4):
        known, unknown = EpochReader(shards, 7, 4, [3] * 4), EpochReader(shards, 7, 4)
        assert epoch_of(known, 1, num_streams) == epoch_of(unknown, 1, num_streams)


def test_every_epoch_and_seed_has_another_order(shards):
    reader = EpochReader(shards, 0, 4, SIZES)
    first = epoch_of(reader, 0, 3)
    assert first == epoch_of(EpochReader(shards, 0, 4, SIZES), 0, 3)
    assert first != epoch_of(reader, 1, 3) and first != epoch_of(EpochReader(shards, 1, 4, SIZES), 0, 3)
    assert len({frozenset(epoch_of(reader, epoch, 3)[0]) for epoch in range(6)}) > 3
    left_out = {frozenset(range(TOTAL)) - set(chain(*epoch_of(reader, epoch, 7))) for epoch in range(8)}
    assert len(left_out) > 3  # the remainder is not always the same


def test_a_shard_at_the_border_is_read_by_two_streams_and_no_other(shards, monkeypatch):
    opened = []
    stock = epoch_module.read_records
    monkeypatch.setattr(epoch_module, "read_records", lambda shard, name: opened.append(shard) or stock(shard, name))
    epoch_of(EpochReader(shards, 0, 4, SIZES), 0, 3)
    counts = Counter(opened)
    assert set(counts) == set(shards) and max(counts.values()) <= 2 and sum(counts.values()) <= len(shards) + 2


@pytest.mark.parametrize("buckets", [None, 2])
def test_any_place_can_be_gone_on_from(shards, buckets):
    given = Buckets(buckets, 2, lambda record: int(record.key) * 7 % 5) if buckets else None
    reader = EpochReader(shards, 3, 4, SIZES, given)
    whole = keys(reader, Span(2, 1, 2))
    for start in range(len(whole) + 1):
        assert keys(reader, Span(2, 1, 2, start)) == whole[start:]
        assert keys(reader, Span(2, 1, 2, start // 2, start)) == whole[start // 2 : start]


def test_shards_that_are_done_are_not_read_again(shards, monkeypatch):
    reader = EpochReader(shards, 0, 2, SIZES)
    whole = keys(reader, Span(0, 0, 1))
    opened = []
    stock = epoch_module.read_records
    monkeypatch.setattr(epoch_module, "read_records", lambda shard, name: opened.append(shard) or stock(shard, name))
    assert keys(reader, Span(0, 0, 1, start=20)) == whole[20:]
    assert len(opened) <= 3


def test_a_shard_with_other_counts_than_its_manifest_says(shards):
    for wrong, found in ((7, "it has 6"), (5, "it has more, at least 6")):
        reader = EpochReader(shards, 0, 4, [*SIZES[:2], wrong, *SIZES[3:]])
        with pytest.raises(ValueError, match=rf"s2\.tar: .*manifest\.json .*\b{wrong} samples, {found}"):
            epoch_of(reader, 0, 1)


def drawn(stream: TrainStream, count: int) -> list[list[int]]:
    return [[number_of(sample) for sample in batch.samples] for batch in islice(stream, count)]


@pytest.mark.parametrize("buckets", [None, 2])
@pytest.mark.parametrize("num_streams", [1, 2, 3, 7])
def test_other_number_of_streams_reads_what_is_left_once_and_evenly(shards, num_streams, buckets):
    """Stopped at random, twice: the second time in the middle of what was dealt again."""
    given = Buckets(buckets, 1, lambda record: int(record.key) * 7 % 5) if buckets else None
    reader, rng = EpochReader(shards, 0, 4, SIZES, given), Random(num_streams)
    seen, positions = [], first_positions(4)
    for count in (4, num_streams, 2):
        if count != len(positions):
            positions = deal_again(positions, count, TOTAL)
            left = [sum(len(keys(reader, span)) for span in p.spans if span.epoch == 0) for p in positions]
            assert max(left) - min(left) <= 1 and sum(left) == TOTAL - len(seen)
        for number, position in enumerate(positions):
            stream = TrainStream(reader, [position], batch_size=1, max_skipped_fraction=0)
            for batch in islice(stream, rng.randrange(1, 3)):
                if batch.position.spans[0].epoch == 0:
                    seen += [number_of(sample) for sample in batch.samples]
                    positions[number] = batch.position
    rest = [key for p in positions for span in p.spans if span.epoch == 0 for key in keys(reader, span)]
    assert sorted(seen + rest) == list(range(TOTAL))


# ---- buckets ----------------------------------------------------------------------------------------------------


def write_mixed(folder, count: int, bad: set[int] = frozenset()) -> list[str]:
    """Samples whose json claims 1 to 16 tokens of 28 x 28 px; the image of each is what it claims."""
    from tests.support.small_shards import image_bytes

    rng, files = Random(0), {}
    for number in range(count):
        width, height = 28 * rng.randrange(1, 5), 28 * rng.randrange(1, 5)
        text = fields(question=f"q {number}", width=width, height=height, boxes_xyxy_px=[[0, 0, 20, 20]])
        files[f"{number:04d}.jpg"] = b"no image" if number in bad else image_bytes(width, height)
        files[f"{number:04d}.json"] = json.dumps(text).encode()
    return [write_tar(folder / "mixed.tar", files)]


def tokens(record_or_sample) -> int:
    given = json.loads(record_or_sample.files["json"]) if hasattr(record_or_sample, "files") else None
    width, height = (given["width"], given["height"]) if given else (record_or_sample.width, record_or_sample.height)
    return width * height // 28**2


def waste(batches: list[list[int]]) -> float:
    """Padding / all, of batches of lengths."""
    padded = sum(len(batch) * max(batch) for batch in batches)
    return 1 - sum(map(sum, batches)) / padded


def mixed_stream(shards, count, num_batches, batch_size=4) -> TrainStream:
    buckets = Buckets(num_batches, batch_size, tokens) if num_batches > 1 else None
    reader = EpochReader(shards, 0, 30, [count], buckets)
    return TrainStream(reader, first_positions(1), batch_size=batch_size, max_skipped_fraction=1)


def test_buckets_waste_less_padding_and_lose_nothing(tmp_path):
    shards = write_mixed(tmp_path, 128)
    found = {}
    for num_batches in (1, 8):
        batches = [batch.samples for batch in islice(mixed_stream(shards, 128, num_batches), 32)]
        assert sorted(number_of(sample) for batch in batches for sample in batch) == list(range(128))
        found[num_batches] = waste([[tokens(sample) for sample in batch] for batch in batches])
    assert found[8] < 0.4 * found[1]


def test_batches_of_a_pool_come_in_random_order(tmp_path):
    batches = list(islice(mixed_stream(write_mixed(tmp_path, 64), 64, 16), 16))
    means = [sum(map(tokens, batch.samples)) for batch in batches]
    assert means != sorted(means) and means != sorted(means, reverse=True)


def test_a_bad_sample_and_the_end_of_an_epoch_make_a_batch_smaller_and_do_not_shift_the_others(tmp_path):
    good = mixed_stream(write_mixed(tmp_path, 30), 30, 3)
    expected = drawn(good, 16)
    assert [len(batch) for batch in expected[:8]] == [4] * 7 + [2]
    assert sorted(chain(*expected[:8])) == sorted(chain(*expected[8:])) == list(range(30))
    bad = {expected[2][1], *expected[4]}
    left = [kept for batch in expected if (kept := [n for n in batch if n not in bad])]
    assert len(left) < len(expected)
    assert drawn(mixed_stream(write_mixed(tmp_path, 30, bad), 30, 3), len(left)) == left


def test_a_resumed_bucketed_stream_goes_on_with_the_very_next_batch(tmp_path):
    stream = mixed_stream(write_mixed(tmp_path, 30, {3, 8}), 30, 3)
    batches = list(islice(stream, 20))
    numbers = [[number_of(sample) for sample in batch.samples] for batch in batches]
    for stop, batch in enumerate(batches[:12], start=1):
        rest = TrainStream(stream.reader, [batch.position], batch_size=4, max_skipped_fraction=1)
        assert drawn(rest, 5) == numbers[stop : stop + 5]
