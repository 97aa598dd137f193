"""Index of windows and patches against the stock one."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch

from gp.backbones.vision_index import VisionIndex
from tests.support.tiny_models import MERGE, tiny_qwen

pytestmark = pytest.mark.core


GRIDS = [(3, 5), (4, 6), (4, 6), (1, 1), (7, 4)]  # merged tokens; windows of 2 x 2


@pytest.mark.parametrize("grids", [GRIDS, GRIDS[::-1], [(2, 2)]])
def test_windows_stay_within_their_image_and_hold_the_same_tokens(grids):
    config = tiny_qwen().config.vision_config
    index = VisionIndex.from_grid(torch.tensor([[1, MERGE * h, MERGE * w] for h, w in grids]), config)
    order = index.tensors["window_index"]
    ends = (index.tensors["cu_window_seqlens"] // MERGE**2).tolist()
    assert sorted(order.tolist()) == list(range(len(order)))
    place = {}
    start = 0
    for height, width in grids:
        for row, column in product(range(height), range(width)):
            place[start + row * width + column] = (start, row // 2, column // 2)
        start += height * width
    windows = [{place[token] for token in order[a:b].tolist()} for a, b in pairwise(ends)]
    assert all(len(window) == 1 for window in windows), "tokens of one image and one window"
    assert len(set.union(*windows)) == len(windows), "no window is cut in two"
    starts = [next(iter(window))[0] for window in windows]
    assert starts == sorted(starts), "images stay in their order"
