"""The integers that say where the training streams stand."""

from __future__ import annotations

from itertools import islice

import pytest

from gp.data.cursor import (
    Part,
    Plan,
    deal_again,
    first_plans,
    fit_workers,
    from_lists,
    resumed_plans,
    stream_range,
    to_lists,
)


def test_streams_of_all_ranks_and_workers_are_numbered_once():
    plans = [plan for rank in range(3) for plan in first_plans(rank, 3, 2)]
    assert sorted(plan.number for plan in plans) == list(range(6))
    assert all(plan.of == 6 and plan.parts == (Part(0, plan.number, 6),) for plan in plans)
    assert [plan.number for plan in first_plans(1, 3, 2)] == [1, 4]


def test_plan_goes_on_with_the_next_epoch():
    plan = Plan(1, 2, (Part(3, 0, 4, start=7), Part(3, 2, 4)))
    steps = list(islice(plan.walk(), 4))
    assert steps[:2] == [plan.parts, plan.parts[1:]]
    assert steps[2:] == [(Part(4, 1, 2),), (Part(5, 1, 2),)]


def covered(streams, epochs: int, of: int) -> list[tuple[int, int, int]]:
    """(epoch, number, of) of everything the streams read up to an epoch; partly read parts with their start."""
    seen = []
    for number, parts in enumerate(streams):
        for step in Plan(number, of, tuple(parts)).walk():
            if step[0].epoch >= epochs:
                break
            seen.append(step[0])
    return seen


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_dealing_again_keeps_everything_once(of):
    old = [(Part(0, 0, 3, 5),), (Part(1, 1, 3, 2),), (Part(0, 2, 3, 9),)]
    new = deal_again(old, of)
    assert len(new) == of
    left = covered(new, epochs=2, of=of)
    expected = {Part(0, 0, 3, 5), Part(0, 2, 3, 9), Part(1, 1, 3, 2), Part(1, 0, 3), Part(1, 2, 3)}
    assert len(left) == len(expected) and set(left) == expected
    third = [part for part in covered(new, epochs=3, of=of) if part.epoch == 2]
    assert sorted(part.number for part in third) == list(range(of)) and {part.of for part in third} == {of}


def test_dealing_again_twice():
    first = deal_again([(Part(0, 0, 1, 5),)], 2)
    again = deal_again(first, 3)
    assert covered(again, epochs=1, of=3) == [Part(0, 0, 1, 5)]
    assert [(p.number, p.of) for p in covered(again, 2, 3) if p.epoch == 1] == [(0, 3), (1, 3), (2, 3)]  # not begun


def test_an_epoch_that_somebody_has_begun_is_dealt_as_it_was():
    begun = deal_again([(Part(0, 0, 2, 5), Part(1, 0, 2)), (Part(1, 1, 2, 3),)], 3)
    left = {part for part in covered(begun, 2, 3)}
    assert left == {Part(0, 0, 2, 5), Part(1, 0, 2), Part(1, 1, 2, 3)}


def test_where_the_counts_are_known_what_is_left_is_cut_evenly():
    """20 records: two streams of 10 have read 4 and 7 of them."""
    first, second, third = deal_again([(Part(0, 0, 2, 4),), (Part(0, 1, 2, 7),)], 3, total=20)
    assert first == (Part(0, 0, 2, 4, 7), Part(1, 0, 3))
    assert second == (Part(0, 0, 2, 7, 10), Part(1, 1, 3))
    assert third == (Part(0, 1, 2, 7, 10), Part(1, 2, 3))
    assert [stream_range(number, 3, 20) for number in range(3)] == [range(0, 6), range(6, 12), range(12, 18)]


def test_plain_lists_and_back():
    streams = [(Part(0, 0, 2, 5), Part(1, 0, 2)), (Part(1, 1, 2, 0, 9),)]
    lists = to_lists(streams)
    assert lists == [[[0, 0, 2, 5, None], [1, 0, 2, 0, None]], [[1, 1, 2, 0, 9]]]
    assert from_lists(lists) == streams
    assert resumed_plans(streams, 1, 2) == [Plan(1, 2, streams[1])]


def test_workers_are_fitted_to_the_shards(caplog):
    assert fit_workers(16, None, 2, 4) == 4
    assert not caplog.records
    assert fit_workers(5, None, 2, 4) == 2
    assert "data.num_workers reduced from 4 to 2: 5 training shards for 2 devices" in caplog.text
    assert fit_workers(1, None, 1, 0) == 0


def test_more_devices_than_shards():
    assert fit_workers(1, 100, 4, 4) == 4  # streams share shards where the counts are known
    with pytest.raises(ValueError, match="100 samples for 101 devices"):
        fit_workers(1000, 100, 101, 0)
    with pytest.raises(ValueError, match="3 shards for 4 devices"):
        fit_workers(3, None, 4, 0)
