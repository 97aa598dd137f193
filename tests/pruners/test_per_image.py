"""Budgets of a prompt dealt to its images."""

from __future__ import annotations

import pytest

from gp.pruners.per_image import deal, image_counts
from tests.support.views import hand_view


def test_largest_remainder():
    # 7 of 30 tokens: 1.4 for 6 and 5.6 for 24
    assert deal(7, [6, 24]) == [1, 6]
    assert deal(5, [6, 6, 6]) == [2, 2, 1]  # 1.67 each; the first ones get what is left
    assert deal(0, [6, 24]) == [0, 0] and deal(30, [6, 24]) == [6, 24] and deal(3, []) == []


@pytest.mark.parametrize("sizes", [[1, 1, 1], [3, 17, 5], [4, 4], [9]])
def test_all_is_dealt_and_no_image_gets_more_than_it_has(sizes):
    for total in range(sum(sizes) + 1):
        dealt = deal(total, sizes)
        assert sum(dealt) == total and all(0 <= one <= size for one, size in zip(dealt, sizes))
        assert all(abs(one - total * size / sum(sizes)) < 1 for one, size in zip(dealt, sizes))


def test_counts_of_images_by_scope():
    tokens, grids = [[1.0]] * 8, [(1, 2), (2, 3)]
    assert image_counts(hand_view(tokens, grids), [5]) == [1, 4]
    assert image_counts(hand_view(tokens, grids, scope="image"), [2, 3]) == [2, 3]
