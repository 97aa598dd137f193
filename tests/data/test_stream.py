"""Who reads which sample in which order: training streams and evaluation streams."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from gp.data import epoch as epoch_module
from gp.data import stream as stream_module
from gp.data.epoch import EpochReader
from gp.data.position import Span, deal_again, first_positions
from gp.data.stream import EvalStream, TrainStream
from tests.support.small_shards import number_of, write_shards

pytestmark = pytest.mark.core

SIZES = [5, 3, 6, 4, 2, 4]
TOTAL = sum(SIZES)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("good"), SIZES)


def keep(raw):
    """Stands for the collator where the samples themselves are wanted."""
    return raw


def train_stream(shards, positions, seed=0, shuffle_buffer=4, counts=None, **options) -> TrainStream:
    reader = EpochReader(shards, seed, shuffle_buffer, counts)
    return TrainStream(reader, positions, **{"batch_size": 1, "max_skipped_fraction": 0.02, **options})


def numbers(raw) -> list[int]:
    return [number_of(sample) for sample in raw.samples]


def epoch_of(stream: TrainStream, epoch: int, number: int, num_streams: int) -> list[int]:
    return [int(record.key) for record in stream.reader.records(Span(epoch, number, num_streams))]


@pytest.mark.parametrize("num_streams", [1, 2, 3, 6])
def test_an_epoch_holds_each_sample_once_over_all_streams(shards, num_streams):
    for epoch in range(2):
        stream = train_stream(shards, first_positions(1))
        seen = [n for number in range(num_streams) for n in epoch_of(stream, epoch, number, num_streams)]
        assert sorted(seen) == list(range(TOTAL))


def test_order_depends_on_seed_and_epoch_and_on_nothing_else(shards):
    positions = first_positions(1)
    first = epoch_of(train_stream(shards, positions), 0, 0, 2)
    assert first == epoch_of(train_stream(shards, positions), 0, 0, 2)
    assert first != epoch_of(train_stream(shards, positions), 1, 0, 2)
    assert first != epoch_of(train_stream(shards, positions, seed=1), 0, 0, 2)
    assert first != sorted(first)


def test_a_stream_does_not_keep_its_shards(shards):
    """Neither over epochs nor over seeds."""
    stream = train_stream(shards, first_positions(1))
    assert len({frozenset(epoch_of(stream, epoch, 0, 2)) for epoch in range(6)}) > 1
    streams = [train_stream(shards, first_positions(1), seed=seed) for seed in range(6)]
    assert len({frozenset(epoch_of(stream, 0, 0, 2)) for stream in streams}) > 1


def test_endless_batches_cross_epochs(shards):
    stream = train_stream(shards, first_positions(1), batch_size=5)
    drawn = list(islice(stream, 15))
    flat = [n for d in drawn for n in numbers(d)]
    assert all(len(d.samples) == 5 for d in drawn)
    for epoch in range(3):
        assert sorted(flat[epoch * TOTAL : (epoch + 1) * TOTAL]) == list(range(TOTAL))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_the_loader(shards, workers):
    """With workers, batches come from their streams in turn."""
    positions = first_positions(2 * max(workers, 1))[1::2]
    stream = train_stream(shards, positions, batch_size=2)
    loader = DataLoader(stream, batch_size=None, num_workers=workers, collate_fn=keep)
    drawn = list(islice(loader, 6))
    alone = [islice(train_stream(shards, [position], batch_size=2), 6) for position in positions]
    expected = [numbers(next(alone[turn % len(alone)])) for turn in range(6)]
    assert [numbers(d) for d in drawn] == expected


@pytest.mark.parametrize("stop", [0, 1, 4, 13, 29])
def test_position_leads_to_the_very_next_sample(shards, stop):
    begin = first_positions(3)[1]
    whole = list(islice(train_stream(shards, [begin], batch_size=2), stop + 12))
    rest = train_stream(shards, [whole[stop - 1].position if stop else begin], batch_size=2)
    assert [numbers(d) for d in islice(rest, 12)] == [numbers(d) for d in whole[stop:]]


def test_skipping_decodes_nothing(shards, monkeypatch):
    decoded = []
    parse = stream_module.parse_record
    monkeypatch.setattr(stream_module, "parse_record", lambda record: decoded.append(record.id) or parse(record))
    next(iter(train_stream(shards, [first_positions(1)[0].at(20)])))
    assert len(decoded) == 1


def test_other_number_of_streams_reads_each_remaining_sample_once(shards):
    streams = [iter(train_stream(shards, [position])) for position in first_positions(2)]
    drawn = [next(streams[n]) for n in (0, 1, 0, 1, 0)]
    done = [n for d in drawn for n in numbers(d)]
    left = deal_again([drawn[4].position, drawn[3].position], 3)
    stream = train_stream(shards, first_positions(1))
    spans = [span for position in left for span in position.spans if span.epoch == 0]
    rest = [int(record.key) for span in spans for record in stream.reader.records(span)]
    assert sorted(done + rest) == list(range(TOTAL))


@pytest.mark.parametrize("counts", [SIZES, None], ids=["counted", "uncounted"])
@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (3, 0), (3, 2), (5, 0)])
def test_evaluation_sees_each_sample_once_in_the_same_batches(shards, world, workers, counts):
    seen = []
    for rank in range(world):
        stream = EvalStream(shards, counts, rank=rank, world=world, batch_size=3)
        loader = DataLoader(stream, batch_size=None, num_workers=workers, collate_fn=keep)
        seen += [numbers(drawn) for drawn in loader if drawn.samples]
    assert sorted(seen) == [list(range(start, min(start + 3, TOTAL))) for start in range(0, TOTAL, 3)]


def test_more_ranks_than_samples(shards):
    counts = [sum(len(d.samples) for d in EvalStream(shards[4:5], SIZES[4:5], rank=r, world=4)) for r in range(4)]
    assert sorted(counts) == [0, 0, 1, 1]


@pytest.mark.parametrize("counts", [SIZES, None], ids=["counted", "uncounted"])
def test_evaluation_goes_on_where_it_stopped(shards, counts):
    done = {sample.number for drawn in islice(EvalStream(shards, counts, batch_size=4), 3) for sample in drawn.samples}
    rest = [EvalStream(shards, counts, rank=r, world=2, batch_size=4, done=done) for r in range(2)]
    left = [number_of(sample) for stream in rest for drawn in stream for sample in drawn.samples]
    assert len(done) == 12 and sorted(left) == list(range(12, TOTAL))


def test_a_rank_opens_its_own_shards_only(shards, monkeypatch):
    opened = []
    read = epoch_module.read_records
    monkeypatch.setattr(epoch_module, "read_records", lambda *shard: opened.append(shard[1]) or read(*shard))
    for rank in range(3):
        list(EvalStream(shards, SIZES, rank=rank, world=3, batch_size=2))
    assert set(opened) == {f"s{index}" for index in range(len(SIZES))}
    assert len(opened) <= len(SIZES) + 2  # the two shards at the borders are read by two ranks
    assert not list(numbers(d) for d in EvalStream(shards, SIZES, done=range(TOTAL)) if d.samples)


def test_a_draw_has_its_share_of_every_shard_and_grows(shards):
    small, large = ([n for d in EvalStream(shards, SIZES, num_samples=k) for n in numbers(d)] for k in (8, 16))
    assert len(small) == 8 and small == sorted(small) and set(small) <= set(large) and len(large) == 16
    begin = 0
    for size in SIZES:
        share = sum(begin <= number < begin + size for number in large)
        assert abs(share - 16 * size / TOTAL) <= 1
        begin += size
    assert [n for d in EvalStream(shards, num_samples=7) for n in numbers(d)] == list(range(7))  # not known: the first


def test_a_shard_that_is_not_what_its_manifest_says_stops_evaluation(shards):
    with pytest.raises(ValueError, match=r"s0\.tar: .* says 99 samples"):
        list(EvalStream(shards[:1], [99]))


@pytest.mark.parametrize("make", [EvalStream, lambda s: train_stream(s, first_positions(1))], ids=["eval", "train"])
def test_truncated_shard_is_an_error_that_names_it(tmp_path, make):
    shards = write_shards(tmp_path, [3, 3])
    whole = Path(shards[1]).read_bytes()
    Path(shards[1]).write_bytes(whole[: 512 * 4])  # right between two files
    with pytest.raises(ValueError, match=r"s1\.tar: truncated"):
        list(islice(make(shards), 10))


def test_bad_samples_are_skipped_and_counted_in_training(tmp_path, caplog):
    shards = write_shards(tmp_path, [40, 40], bad={3, 50})
    seen = [n for d in islice(train_stream(shards, first_positions(1), batch_size=2), 39) for n in numbers(d)]
    assert sorted(seen) == sorted(set(range(80)) - {3, 50})
    assert "s0.tar, key 0003: image does not open" in caplog.text


def test_too_many_bad_samples_stop_training(tmp_path):
    shards = write_shards(tmp_path, [20], bad=set(range(0, 20, 2)))
    with pytest.raises(ValueError, match=r"max_skipped_fraction = 0\.02 .* x image .*s0\.tar"):
        list(islice(train_stream(shards, first_positions(1)), 100))


def test_nothing_usable_ends_even_if_everything_may_be_skipped(tmp_path):
    shards = write_shards(tmp_path, [3], bad={0, 1, 2})
    with pytest.raises(ValueError, match=r"no usable sample.*3 of 3"):
        next(iter(train_stream(shards, first_positions(1), max_skipped_fraction=1.0)))


def test_bad_samples_in_evaluation_are_reported(tmp_path):
    shards = write_shards(tmp_path, [7], bad={2, 3})
    drawn = list(EvalStream(shards, batch_size=2))
    assert [numbers(d) for d in drawn] == [[0, 1], [], [4, 5], [6], []]
    assert [d.split_size for d in drawn] == [None] * 4 + [7]
    assert [error.reason for error in drawn[1].skipped] == ["image does not open"] * 2


def test_empty_and_repeated_shards(tmp_path, shards):
    with pytest.raises(ValueError, match=r"no samples.*s0\.tar"):
        list(EvalStream(write_shards(tmp_path, [0])))
    with pytest.raises(ValueError, match=r"no samples in shards .*s0.tar"):
        list(EvalStream(write_shards(tmp_path, [0]), [0]))
    with pytest.raises(ValueError, match=r"s0.tar is listed twice"):
        EvalStream([shards[0], shards[1], shards[0]])
    with pytest.raises(ValueError, match=r"rank in 0\.\.1"):
        EvalStream(shards, rank=2, world=2)
