"""Pictures of what was kept and of how important it was found, pixel by pixel."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from gp.painting import HEAT_SHARE, paint_heat, side_by_side


def test_every_pixel_of_a_heat_map_has_the_colour_of_its_token():
    image = Image.new("RGB", (6, 4), (100, 100, 100))
    heat = torch.tensor([[0.0, 0.5, 1.0], [0.25, 0.75, 1.0]])
    painted = np.asarray(paint_heat(image, heat), dtype=float)
    for row, column in np.ndindex(4, 6):
        color = np.array(matplotlib.colormaps["inferno"](float(heat[row // 2, column // 2]))[:3]) * 255
        np.testing.assert_allclose(painted[row, column], HEAT_SHARE * color + (1 - HEAT_SHARE) * 100, atol=0.51)


def test_what_was_not_seen_is_as_cold_as_zero():
    image = Image.new("RGB", (8, 4), (100, 100, 100))
    painted = np.asarray(paint_heat(image, torch.ones(1, 1), (0.25, 0.0, 0.75, 1.0)))
    cold = np.asarray(paint_heat(image, torch.zeros(1, 1)))
    assert (painted[:, :2] == cold[:, :2]).all() and (painted[:, 6:] == cold[:, 6:]).all()
    assert (painted[:, 2:6] != cold[:, 2:6]).any(-1).all()


def test_a_heat_map_must_be_a_grid():
    with pytest.raises(ValueError, match=r"heat must be \[h, w\].*got \[4\]"):
        paint_heat(Image.new("RGB", (4, 4)), torch.ones(4))


def test_pictures_in_a_row():
    row = side_by_side([Image.new("RGB", (2, 3), "red"), Image.new("RGB", (4, 1), "blue")])
    assert row.size == (6, 3)
    assert [row.getpixel(at) for at in ((1, 2), (2, 0), (2, 1))] == [(255, 0, 0), (0, 0, 255), (255, 255, 255)]
