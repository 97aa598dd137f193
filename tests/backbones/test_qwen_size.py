"""Size of an image before it is processed, against what the stock image processor makes of it."""

from __future__ import annotations

import pytest
from PIL import Image

from gp.backbones.processor import load_processor
from gp.backbones.qwen_size import resized
from gp.embedded import BASE_DIR


@pytest.mark.parametrize("size", [(28, 28), (97, 41), (400, 130), (9, 60), (333, 1000)])
def test_the_stock_image_processor_gives_this_size(size):
    images = load_processor(BASE_DIR).image_processor
    factor = images.patch_size * images.merge_size
    limits = {"min_pixels": 56 * 56, "max_pixels": 40 * factor**2}
    width, height = resized(size, factor, **limits)
    edges = {"shortest_edge": limits["min_pixels"], "longest_edge": limits["max_pixels"]}
    _, rows, columns = images(Image.new("RGB", size), size=edges, return_tensors="pt")["image_grid_thw"][0].tolist()
    assert (width, height) == (columns * images.patch_size, rows * images.patch_size)


def test_a_strip_is_refused_with_its_ratio():
    with pytest.raises(ValueError, match="200"):
        resized((4, 1000), 28, 1, 10**6)
