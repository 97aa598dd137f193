"""The integers that say where the training streams stand."""

from __future__ import annotations

from itertools import islice

import pytest

from gp.data.position import Position, Span, deal_again, first_positions, from_lists, stream_range, to_lists


def positions_of(*streams: tuple[Span, ...]) -> list[Position]:
    return [Position(number, len(streams), spans) for number, spans in enumerate(streams)]


def test_streams_of_all_ranks_and_workers_are_numbered_once():
    positions = first_positions(6)
    assert [position.stream for position in positions] == list(range(6))
    assert all(p.num_streams == 6 and p.spans == (Span(0, p.stream, 6),) for p in positions)


def test_a_position_goes_on_with_the_next_epoch():
    position = Position(1, 2, (Span(3, 0, 4, start=7), Span(3, 2, 4)))
    steps = [step.spans for step in islice(position.walk(), 4)]
    assert steps[:2] == [position.spans, position.spans[1:]]
    assert steps[2:] == [(Span(4, 1, 2),), (Span(5, 1, 2),)]


def test_a_position_later_in_its_first_span():
    position = Position(1, 2, (Span(3, 0, 4, 7, 12), Span(3, 2, 4)))
    assert position.at(9) == Position(1, 2, (Span(3, 0, 4, 9, 12), Span(3, 2, 4)))


def covered(positions: list[Position], epochs: int) -> list[Span]:
    """First spans of everything the streams read up to an epoch."""
    seen = []
    for position in positions:
        for step in position.walk():
            if step.spans[0].epoch >= epochs:
                break
            seen.append(step.spans[0])
    return seen


@pytest.mark.parametrize("num_streams", [1, 2, 3, 7])
def test_dealing_again_keeps_everything_once(num_streams):
    old = positions_of((Span(0, 0, 3, 5),), (Span(1, 1, 3, 2),), (Span(0, 2, 3, 9),))
    new = deal_again(old, num_streams)
    assert [(p.stream, p.num_streams) for p in new] == [(n, num_streams) for n in range(num_streams)]
    left = covered(new, epochs=2)
    expected = {Span(0, 0, 3, 5), Span(0, 2, 3, 9), Span(1, 1, 3, 2), Span(1, 0, 3), Span(1, 2, 3)}
    assert len(left) == len(expected) and set(left) == expected
    third = [span for span in covered(new, epochs=3) if span.epoch == 2]
    assert sorted(span.stream for span in third) == list(range(num_streams))
    assert {span.num_streams for span in third} == {num_streams}


def test_dealing_again_twice():
    first = deal_again(positions_of((Span(0, 0, 1, 5),)), 2)
    again = deal_again(first, 3)
    assert covered(again, epochs=1) == [Span(0, 0, 1, 5)]
    assert [span for span in covered(again, 2) if span.epoch == 1] == [Span(1, n, 3) for n in range(3)]  # not begun


def test_an_epoch_that_somebody_has_begun_is_dealt_as_it_was():
    begun = deal_again(positions_of((Span(0, 0, 2, 5), Span(1, 0, 2)), (Span(1, 1, 2, 3),)), 3)
    left = set(covered(begun, 2))
    assert left == {Span(0, 0, 2, 5), Span(1, 0, 2), Span(1, 1, 2, 3)}


def test_where_the_counts_are_known_what_is_left_is_cut_evenly():
    """20 records: two streams of 10 have read 4 and 7 of them."""
    old = positions_of((Span(0, 0, 2, 4),), (Span(0, 1, 2, 7),))
    first, second, third = (position.spans for position in deal_again(old, 3, total=20))
    assert first == (Span(0, 0, 2, 4, 7), Span(1, 0, 3))
    assert second == (Span(0, 0, 2, 7, 10), Span(1, 1, 3))
    assert third == (Span(0, 1, 2, 7, 10), Span(1, 2, 3))
    assert [stream_range(number, 3, 20) for number in range(3)] == [range(0, 6), range(6, 12), range(12, 18)]


def test_plain_lists_and_back():
    positions = positions_of((Span(0, 0, 2, 5), Span(1, 0, 2)), (Span(1, 1, 2, 0, 9),))
    lists = to_lists(positions)
    assert lists == [[[0, 0, 2, 5, None], [1, 0, 2, 0, None]], [[1, 1, 2, 0, 9]]]
    assert from_lists(lists) == positions
