"""Sheet of pictures with their boxes."""

from __future__ import annotations

import numpy as np

from gp.data.inspecting.contact_sheet import Chosen, contact_sheet
from gp.data.inspecting.reading import StoredRecord
from gp.data.painting import BOX_RGB
from tests.support.small_shards import fields, image_bytes


def test_boxes_are_drawn_where_they_are():
    row = fields(width=240, height=120, boxes_xyxy_px=[[100, 20, 200, 80]])
    sheet = contact_sheet([StoredRecord("w", image_bytes(240, 120, color=(0, 0, 0)), (240, 120), [row])])
    red = np.argwhere(np.all(np.asarray(sheet)[8:248, 8:248] == BOX_RGB, axis=-1))  # rows, columns of the cell
    assert red.min(axis=0).tolist() == [60 + 20, 100] and red.max(axis=0).tolist() == [60 + 80, 200]


def test_the_draw_of_a_sheet_is_uniform_and_repeats():
    records = [StoredRecord(str(number), b"", (1, 1), []) for number in range(1000)]
    draws = []
    for _ in range(2):
        chosen = Chosen(100)
        for record in records:
            chosen(record)
        draws.append(chosen.records)
    assert draws[0] == draws[1] and len({record.where for record in draws[0]}) == 100
    assert 350 < sum(int(record.where) for record in draws[0]) / 100 < 650
