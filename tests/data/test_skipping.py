"""Skipped samples are counted by reason and bounded."""

from __future__ import annotations

import logging

import pytest

from gp.data.sample import BadSample
from gp.data.skipping import PATIENCE, SkipCounter

BAD = BadSample("no boxes", "shard a.tar, key 7")


def test_broken_data_stop_early_whatever_the_order():
    counter = SkipCounter(0.02)
    for _ in range(20):
        counter.bad(BAD)
    with pytest.raises(ValueError, match=r"0\.02 of 1000 .*21 of 21 .*21 x no boxes, .*a\.tar, key 7"):
        counter.bad(BAD)


def test_fraction_is_kept_in_the_long_run():
    counter = SkipCounter(0.02)
    for _ in range(100):
        counter.good(98)
        counter.bad(BAD)
        counter.bad(BAD)
    assert counter.seen == 10_000 and counter.skipped == 200 > 0.02 * PATIENCE
    with pytest.raises(ValueError, match="201 of 10001"):
        counter.bad(BAD)


def test_end_of_a_pass_is_exact():
    counter = SkipCounter(0.1)
    counter.good(9)
    counter.bad(BAD)
    counter.finish(total=10)
    counter.bad(BadSample("wrong json", "shard b.tar, key 1"))
    with pytest.raises(ValueError, match=r"0\.1 of 11 .*2 of 11.*no boxes.*wrong json, .*b\.tar"):
        counter.finish(total=11)
    counter.finish(total=20)  # one rank of two


def test_zero_tolerates_none():
    with pytest.raises(ValueError, match="1 of 1"):
        SkipCounter(0.0).bad(BAD)


def test_log_names_samples_and_stays_short(caplog):
    counter = SkipCounter(1.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            counter.bad(BAD)
    assert "shard a.tar, key 7: no boxes" in caplog.text
    assert len(caplog.records) == 10 + 6  # the first ten, then 16, 32, ..., 512
