"""Sheet of pictures with their boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gp.data.inspecting.contact_sheet import Chosen, contact_sheet
from gp.data.painting import BOX_RGB
from tests.support.samples import SMALL

BLACK = replace(
    SMALL, image=Image.new("RGB", (240, 120)), width=240, height=120, boxes_xyxy_px=((100.0, 20.0, 200.0, 80.0),)
)


@pytest.mark.parametrize("scale", [1, 4, 0.1])
def test_boxes_are_drawn_where_they_are_on_images_of_any_size(scale):
    """Large ones are reduced, small ones enlarged."""
    sample = replace(BLACK, image=BLACK.image.resize((round(240 * scale), round(120 * scale))))
    sheet = contact_sheet([sample])
    red = np.argwhere(np.all(np.asarray(sheet)[8:248, 8:248] == BOX_RGB, axis=-1))  # rows, columns of the cell
    assert red.min(axis=0).tolist() == [60 + 20, 100] and red.max(axis=0).tolist() == [60 + 80, 200]


def test_title_and_question_stand_below():
    """Another title gives other pixels in its lines, and the same picture."""
    sheets = [
        np.asarray(contact_sheet([replace(BLACK, **change)])) for change in ({}, {"id": "s7/1234"}, {"split": "val"})
    ]
    for other in sheets[1:]:
        rows = np.flatnonzero((sheets[0] != other).any(axis=(1, 2)))
        assert rows.size and rows.min() > 248


def test_the_draw_of_a_sheet_is_uniform_and_repeats():
    samples = [replace(SMALL, id=str(number)) for number in range(1000)]
    draws = []
    for _ in range(2):
        chosen = Chosen(100)
        for sample in samples:
            chosen(sample)
        draws.append(chosen.samples)
    assert draws[0] == draws[1] and len({sample.id for sample in draws[0]}) == 100
    assert 350 < sum(int(sample.id) for sample in draws[0]) / 100 < 650
