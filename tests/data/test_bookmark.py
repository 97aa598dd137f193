"""The bookmark of a rank: what moves it, what a checkpoint keeps of it, where another run opens it."""

from __future__ import annotations

import pytest

from gp.data.bookmark import SAMPLES, Bookmark
from gp.data.position import Span

ORDER = {"seed": 0, SAMPLES: 24}


def spans(bookmark: Bookmark) -> list[tuple[Span, ...]]:
    return [position.spans for position in bookmark.positions]


def test_a_rank_opens_its_own_streams():
    assert spans(Bookmark.open({}, ORDER, rank=1, world=3, workers=2)) == [(Span(0, 1, 6),), (Span(0, 4, 6),)]


def test_a_batch_counts_once_the_trainer_has_counted_it():
    bookmark = Bookmark.open({}, ORDER, 0, 1, 2)
    first, second = bookmark.positions
    bookmark.enter(first.at(4), batches_done=0)
    assert spans(bookmark) == [first.spans, second.spans]
    bookmark.leave(batches_done=0)  # the step failed
    assert spans(bookmark) == [first.spans, second.spans] and bookmark.next_worker == 0
    bookmark.enter(second.at(3), batches_done=1)  # the step before it is done
    assert spans(bookmark) == [first.at(4).spans, second.spans] and bookmark.next_worker == 1
    bookmark.leave(batches_done=2)
    assert spans(bookmark) == [first.at(4).spans, second.at(3).spans] and bookmark.next_worker == 0


def test_as_many_streams_go_on_where_they_were():
    bookmark = Bookmark.open({}, ORDER, 0, 1, 2)
    bookmark.enter(bookmark.positions[0].at(4), 0)
    bookmark.leave(1)
    saved = bookmark.state_dict(world=1)
    assert saved == {
        "order": ORDER,
        "world": 1,
        "next_worker": 1,
        "streams": [[[0, 0, 2, 4, None]], [[0, 1, 2, 0, None]]],
    }
    again = Bookmark.open(saved, ORDER, 0, 1, 2)
    assert (again.positions, again.next_worker) == (bookmark.positions, 1)


def test_other_numbers_of_ranks_share_what_is_left():
    saved = {"order": ORDER, "world": 1, "next_worker": 1, "streams": [[[0, 0, 2, 4, None]], [[0, 1, 2, 2, None]]]}
    ranks = [Bookmark.open(saved, ORDER, rank, world=2, workers=1) for rank in range(2)]  # as many streams, dealt anew
    assert [one.next_worker for one in ranks] == [0, 0]
    assert spans(ranks[0]) == [(Span(0, 0, 2, 4, 12), Span(0, 1, 2, 2, 3), Span(1, 0, 2))]
    assert spans(ranks[1]) == [(Span(0, 1, 2, 3, 12), Span(1, 1, 2))]


def test_another_order_is_refused():
    saved = Bookmark.open({}, ORDER, 0, 1, 1).state_dict(world=1)
    with pytest.raises(ValueError, match="seed 0, this run has 1"):
        Bookmark.open(saved, {**ORDER, "seed": 1}, 0, 1, 1)
