"""Painting kept tokens: pure functions of image, mask and boxes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from gp.data.painting import BOX_INNER_RGB, BOX_RGB, add_caption, outline_boxes
from gp.painting import paint_tokens


def image(width: int = 40, height: int = 20, color=(200, 100, 50)) -> Image.Image:
    return Image.new("RGB", (width, height), color)


def test_kept_tokens_stay_and_dropped_ones_darken():
    mask = torch.tensor([[True, False], [False, True]])
    painted = np.asarray(paint_tokens(image(), mask)).astype(int)
    assert (painted[:10, :20] == (200, 100, 50)).all() and (painted[10:, 20:] == (200, 100, 50)).all()
    assert painted[:10, 20:].max() < 60 and painted[10:, :20].max() < 60


def test_the_grid_is_stretched_over_sizes_that_it_does_not_divide():
    painted = paint_tokens(image(41, 23), torch.ones(3, 5))
    assert painted.size == (41, 23) and np.array_equal(np.asarray(painted), np.asarray(image(41, 23)))


def test_boxes_are_outlined_inside_the_image():
    given = image()
    outline_boxes(given, [(30, 5, 60, 60), (-5, -5, 3, 3)], given.size)
    painted = np.asarray(given)
    assert (painted[5, 30] == BOX_RGB).all() and (painted[19, 39] == BOX_RGB).all() and (painted[0, 0] == BOX_RGB).all()
    assert (painted[12, 35] == (200, 100, 50)).all()


def luminance(color) -> float:
    """Relative luminance of an sRGB colour in 0..255, as of WCAG 2."""
    linear = [c / 12.92 if (c := level / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for level in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_an_outline_shows_on_every_colour():
    """On each of 729 colours one of its two tones has a contrast of 3 to 1 or more, and so have they to each other."""

    def contrast(one, other) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for color in product(range(0, 256, 32), repeat=3):
        given = image(40, 20, color)
        outline_boxes(given, [(10, 5, 30, 15)], given.size)
        tones = {given.getpixel((x, 10)) for x in range(10, 14)} - {color}
        assert max(contrast(color, tone) for tone in tones) >= 3, color
    assert contrast(BOX_RGB, BOX_INNER_RGB) >= 3


def test_what_is_dropped_can_still_be_recognised():
    """Half of the contrast between light and dark stays visible, and stands back behind what is kept."""
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 240
    painted = np.asarray(paint_tokens(Image.fromarray(stripes), torch.zeros(2, 2))).astype(int)
    assert 80 <= painted[:, ::2].max() - painted[:, 1::2].min() <= 120


def test_the_image_itself_is_not_changed():
    given = image()
    paint_tokens(given, torch.zeros(2, 2))
    assert np.array_equal(np.asarray(given), np.asarray(image()))


def test_grey_and_transparent_images_come_out_as_rgb():
    assert paint_tokens(Image.new("L", (8, 8)), torch.ones(2, 2)).mode == "RGB"
    assert paint_tokens(Image.new("RGBA", (8, 8)), torch.ones(2, 2)).mode == "RGB"


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2), (0, 3)])
def test_a_mask_that_is_no_grid_is_refused(shape):
    with pytest.raises(ValueError, match=r"keep_mask must be \[h, w\]"):
        paint_tokens(image(), torch.ones(shape))


def test_a_grid_over_a_padded_or_cropped_image():
    mask = torch.tensor([[True, False, True, False]] * 4)
    padded = np.asarray(paint_tokens(image(40, 20), mask, frame=(0.0, -0.5, 1.0, 1.5))).max(axis=2)
    assert (padded[:, :10] == 200).all() and (padded[:, 10:20] < 60).all()  # columns of 10 px, 2 of 4 rows on the image
    upper = torch.arange(4)[:, None].expand(4, 4) < 2
    padded = np.asarray(paint_tokens(image(40, 20), upper, frame=(0.0, -0.5, 1.0, 1.5))).max(axis=2)
    assert (padded[:10] == 200).all() and (padded[10:] < 60).all()
    cropped = np.asarray(paint_tokens(image(40, 20), torch.ones(2, 2), frame=(0.25, 0.0, 0.75, 1.0))).max(axis=2)
    assert (cropped[:, 10:30] == 200).all() and (cropped[:, :10] < 60).all() and (cropped[:, 30:] < 60).all()


def test_a_caption_is_broken_to_the_width_of_the_picture():
    picture = Image.new("RGB", (120, 50), (10, 20, 30))
    long_line = "what is the big red thing in the middle ?"
    short, long = add_caption(picture, ["red"]), add_caption(picture, [long_line, "red"])
    assert short.crop((0, 0, 120, 50)).tobytes() == picture.tobytes() and short.width == long.width == 120
    assert short.height == 50 + 18 + 4 and long.height >= short.height + 2 * 18
    text = np.asarray(short)[50:]
    assert (text[:, -40:] == 255).all() and (text < 80).any()
