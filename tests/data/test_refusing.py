"""Samples that parse and that the processor does not read: skipped by name, in training and in evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import islice

import pytest
from PIL import Image

from gp.data.batch import Collator
from gp.data.epoch import EpochReader
from gp.data.loading import train_batch
from gp.data.position import first_positions
from gp.data.refusing import usable_batch
from gp.data.stream import TrainStream
from tests.support.samples import LARGE, SMALL
from tests.support.small_shards import fields, image_bytes, number_of, small_processor, write_shards, write_tar

MARKED = replace(SMALL, id="s0/9", question="what is <|image_pad|> here ?")


@pytest.fixture(scope="module")
def collator():
    return Collator(small_processor())


@pytest.mark.parametrize("text", ["<|image_pad|>", "<|video_pad|> ?", "what <|vision_start|>"])
@pytest.mark.parametrize("name", ["question", "answer"])
def test_a_marker_in_a_text_is_named(collator, name, text):
    bad = replace(SMALL, id="s0/7", **{name: text})
    batch, refused = usable_batch(collator, [SMALL, bad, LARGE])
    assert [sample.id for sample in batch.samples] == [SMALL.id, LARGE.id]
    (error,) = refused
    assert (error.reason, error.where) == ("image marker in a text", "s0/7")
    assert name in error.detail and text[:13].split()[0] in error.detail


def test_what_the_processor_raises_is_named_too(collator, monkeypatch):
    """An image longer than 200 : 1 gets past nothing but the processor here."""
    long = replace(SMALL, id="s0/8", image=Image.new("RGB", (28 * 300, 28)))
    batch, refused = usable_batch(collator, [long, SMALL])
    assert [sample.id for sample in batch.samples] == [SMALL.id]
    assert (refused[0].reason, refused[0].where) == ("refused by the processor", "s0/8")
    assert "aspect ratio" in refused[0].detail
    assert usable_batch(collator, [long, MARKED])[0] is None


def test_an_error_of_the_whole_batch_is_the_programs(collator, monkeypatch):
    def fail(samples):
        if len(samples) > 1:
            raise RuntimeError("two")
        return Collator.__call__(collator, samples)

    other = type("Other", (), {"markers": [], "__call__": lambda _, samples: fail(samples)})()
    with pytest.raises(RuntimeError, match="two"):
        usable_batch(other, [SMALL, LARGE])


def shards_with(folder, marked: set[int], count: int = 12) -> list[str]:
    files = {}
    for number in range(count):
        question = f"what is {'<|image_pad|>' if number in marked else 'here'} ? {number}"
        files[f"{number:04d}.jpg"] = image_bytes()
        files[f"{number:04d}.json"] = json.dumps(fields(question=question)).encode()
    return [write_tar(folder / "s0.tar", files)]


def stream(collator, shards, batch_size, fraction=0.5) -> TrainStream:
    reader = EpochReader(shards, 0, 0)
    make = partial(train_batch, collator)
    return TrainStream(reader, first_positions(1), make, batch_size=batch_size, max_skipped_fraction=fraction)


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_training_fills_the_place_of_a_refused_sample(collator, tmp_path, batch_size, caplog):
    marked = {0, 4, 5}
    shards = shards_with(tmp_path, marked)
    batches = list(islice(stream(collator, shards, batch_size), 18 // batch_size))
    assert all(len(batch) == batch_size for batch in batches)
    numbers = [number_of(sample) for batch in batches for sample in batch.samples]
    good = [number for number in range(12) if number not in marked]
    assert sorted(numbers[:9]) == good and set(numbers) == set(good)
    assert caplog.text.count("image marker in a text") >= 3 and "s0/0004" in caplog.text


def test_a_resumed_stream_goes_on_behind_the_refused_ones(collator, tmp_path):
    shards = shards_with(tmp_path, {0, 4, 5})
    whole = [[s.id for s in batch.samples] for batch in islice(stream(collator, shards, 2), 9)]
    for stop in (1, 2, 3, 5):
        position = list(islice(stream(collator, shards, 2), stop))[-1].position
        rest = stream(collator, shards, 2)
        rest.positions = [position]
        assert [[s.id for s in batch.samples] for batch in islice(rest, 9 - stop)] == whole[stop:]


@pytest.mark.parametrize("fraction", [0.2, 1.0])
def test_refused_samples_are_bounded_and_nothing_usable_is_an_error(collator, tmp_path, fraction):
    shards = shards_with(tmp_path, set(range(12)))
    with pytest.raises(ValueError, match=r"no usable sample|are unusable"):
        next(iter(stream(collator, shards, 3, fraction)))


def test_few_samples_still_fill_large_batches(collator, tmp_path):
    shards = write_shards(tmp_path, [2])
    batch = next(iter(stream(collator, shards, 7)))
    assert len(batch) == 7
