"""Rectangles around kept cells, on small grids by hand and on random ones against a closure."""

from __future__ import annotations

import pytest
import torch

from gp.pruners.regions import centres, groups_of_cells, joined, near, overlap, rectangles, scaled, without_rims


def grid(*rows: str) -> torch.Tensor:
    return torch.tensor([[cell == "#" for cell in row] for row in rows])


TWO = grid("##.....", "#......", ".......", ".....##", "......#")


def test_cells_that_nearly_touch_are_one_group():
    groups = list(groups_of_cells(grid("#.#....", ".......", "....#..", "......#")))
    assert groups == [[(0, 0), (0, 2), (2, 4), (3, 6)]]
    assert len(list(groups_of_cells(TWO))) == 2


def test_the_most_important_group_first():
    importance = torch.ones(5, 7)
    importance[3:] = 2.0
    assert rectangles(TWO, importance, 1, 0) == [(3, 5, 5, 7)]
    assert rectangles(TWO, importance, 2, 0) == [(3, 5, 5, 7), (0, 0, 2, 2)]
    assert rectangles(torch.zeros(2, 2, dtype=torch.bool), torch.ones(2, 2), 2, 1) == []


def test_a_rim_makes_no_box_larger_and_what_is_faint_all_over_keeps_its_size():
    keep = grid("###....", "###....", ".......", ".....##", ".....##")
    importance = torch.full((5, 7), 0.9)
    importance[:, 0] = 0.05  # beside 0.9: a rim
    importance[3:, 5:] = torch.tensor([[0.1, 0.05], [0.04, 0.009]])  # the last one is a rim of these
    assert (
        without_rims(keep, importance).int().tolist()
        == grid(".##....", ".##....", ".......", ".....##", ".....#.").int().tolist()
    )
    assert rectangles(keep, importance, 2, 0) == [(0, 1, 2, 3), (3, 5, 5, 7)]
    alone = grid("#......", "..#....")  # apart by a cell: not a rim, whatever its importance
    assert torch.equal(without_rims(alone, torch.tensor([[0.01], [0.9]]).expand(2, 7)), alone)


def test_margins_end_at_the_image_and_join_what_they_make_overlap():
    assert rectangles(TWO, torch.ones(5, 7), 2, 1) == [(0, 0, 3, 3), (2, 4, 5, 7)]
    assert rectangles(TWO, torch.ones(5, 7), 2, 3) == [(0, 0, 5, 7)]


def test_boxes_on_a_finer_grid_hold_all_that_they_touch():
    assert scaled((1, 0, 2, 2), (3, 4), (8, 10)) == (2, 0, 6, 5)
    assert scaled((0, 0, 3, 4), (3, 4), (8, 10)) == (0, 0, 8, 10)


def test_half_a_cell_of_margin_is_a_token_where_two_tokens_are_a_cell():
    (box,) = rectangles(TWO[:2], torch.ones(2, 7), 2, 0.5)
    assert box == (0, 0, 2, 2.5)
    assert scaled(box, (2, 7), (4, 14)) == (0, 0, 4, 5)
    assert scaled((1.9, 0.1, 3, 4), (3, 4), (6, 8)) == (3, 0, 6, 8)  # what it touches only


def test_centres_of_a_crop():
    points = centres((2, 0, 6, 5), (4, 5), (8, 10), (3, 4)).view(4, 5, 2)
    assert points[:, 0, 0].long().tolist() == [0, 1, 1, 2]  # centres 2.5, 3.5, 4.5, 5.5 of 8 rows
    assert points[0, :, 1].long().tolist() == [0, 0, 1, 1, 1]  # .5 .. 4.5 of 10 columns


def test_what_is_near_a_cell():
    cells = grid("....", ".#..", "....")
    points = centres((0, 0, 6, 8), (6, 8), (6, 8), (3, 4))  # two by two tokens a cell
    found = {margin: near(points, cells, margin).view(6, 8) for margin in (0, 0.5, 1)}
    for margin, tokens in ((0, 0), (0.5, 1), (1, 2)):
        expected = torch.zeros(6, 8, dtype=torch.bool)
        expected[2 - tokens : 4 + tokens, 2 - tokens : 4 + tokens] = True
        assert torch.equal(found[margin], expected)
    assert not near(points, torch.zeros(3, 4, dtype=torch.bool), 9).any()


@pytest.mark.parametrize("seed", range(5))
def test_against_the_closure(seed):
    """A group is what can be reached in steps of two cells at most."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(12, 15, generator=generator) < 0.06
    reach = {cell: {cell} for cell in map(tuple, keep.nonzero().tolist())}
    for _ in range(len(reach)):  # the transitive closure, by hand
        for cell, others in reach.items():
            near = {c for c in reach for o in others if max(abs(c[0] - o[0]), abs(c[1] - o[1])) <= 2}
            reach[cell] = others | near
    expected = {frozenset(others) for others in reach.values()}
    assert {frozenset(group) for group in groups_of_cells(keep)} == expected
    boxes = rectangles(keep, torch.ones(12, 15), 99, 1)
    assert not any(overlap(one, other) for k, one in enumerate(boxes) for other in boxes[:k])
    assert boxes == joined(boxes)
