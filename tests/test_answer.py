"""An answer prints in one line and shows its pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gp.answer import Answer


def answer(count: int = 1, **changes) -> Answer:
    masks = tuple(torch.tensor([[True, False]]) for _ in range(count))
    pictures = tuple(Image.new("RGB", (8, 4 + 2 * i), "white") for i in range(count))
    return Answer(
        **{"text": "a\nb", "keep_masks": masks, "num_kept": 1, "num_visual": 2, "images": pictures, **changes}
    )


def test_one_line():
    assert str(answer()) == repr(answer()) == r"Answer(text='a\nb', num_kept=1, num_visual=2)"


def test_kept_is_bright_and_dropped_is_dark():
    pixels = np.asarray(answer().overlay())
    assert pixels.shape == (4, 8, 3) and (pixels[:, :4] == 255).all() and (pixels[:, 4:] < 120).all()
    shifted = np.asarray(answer(frames=((0.0, 0.0, 0.5, 1.0),)).overlay())  # the grid lies over the left half
    assert (shifted[:, :2] == 255).all() and (shifted[:, 2:] < 120).all()


def test_several_images_side_by_side():
    pixels = np.asarray(answer(3).overlay())
    assert pixels.shape == (8, 24, 3) and (pixels[6:, 8:16] == 255).all()  # below the second one
    for left in (0, 8, 16):
        assert (pixels[:4, left : left + 4] == 255).all() and (pixels[:4, left + 4 : left + 8] < 120).all()


def test_what_cannot_be_shown(tmp_path):
    with pytest.raises(ValueError, match="about no image"):
        answer(0).overlay()
    with pytest.raises(ValueError, match="unknown file extension"):
        answer().save(tmp_path / "kept.answer")
    assert Image.open(answer().save(tmp_path / "kept.png")).size == (8, 4)
