"""What workers hand over, and what an evaluation counts of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gp.data.batch import Collator
from gp.data.loading import EvalLoader, collate_eval, num_visual_tokens, train_batch
from gp.data.sample import BadSample
from gp.data.shards import Record
from gp.data.stream import RawBatch
from tests.support.samples import LARGE, SMALL
from tests.support.small_shards import small_processor

BAD = BadSample("no boxes", "shard s0.tar, key 0002")


@pytest.fixture(scope="module")
def collator():
    return Collator(small_processor())


def test_training_batches_carry_no_images(collator):
    batch, refused = train_batch(collator, [SMALL, LARGE])
    assert refused == []
    assert batch.samples == [replace(SMALL, image=None), replace(LARGE, image=None)]
    assert batch.inputs["input_ids"].shape[0] == 2


def test_evaluation_keeps_images_and_a_batch_may_be_all_bad(collator):
    batch, raw = collate_eval(collator, RawBatch([SMALL], skipped=[BAD]))
    assert batch.samples[0].image is not None and batch.position is None and raw.skipped == [BAD]
    assert collate_eval(collator, RawBatch(skipped=[BAD]))[0] is None


def test_an_evaluation_counts_what_it_skipped_against_the_whole_split(collator):
    raws = [RawBatch([SMALL, LARGE]), RawBatch(skipped=[BAD]), RawBatch(split_size=10)]
    loader = EvalLoader([collate_eval(collator, raw) for raw in raws], max_skipped_fraction=0.1)
    for _ in range(2):  # each pass counts anew
        assert [len(batch) for batch in loader] == [2]
        assert (loader.skips.seen, dict(loader.skips.reasons)) == (3, {"no boxes": 1})
    loader.max_skipped_fraction = 0.09
    with pytest.raises(ValueError, match="1 of 3 samples skipped"):
        list(loader)


def test_visual_tokens_by_the_size_that_the_json_states(collator):
    text = b'{"question": "q", "answer": "a", "dataset": "d", "split": "s", "boxes_xyxy_px": [], "source_id": "1", '
    known = Record("s0/1", "s0.tar", "1", {"json": text + b'"width": 84, "height": 56}'})
    assert num_visual_tokens(collator, known) == 6
    assert num_visual_tokens(collator, Record("s0/1", "s0.tar", "1", {"json": b"{}"})) == 0
