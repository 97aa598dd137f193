"""Images that can be used, and every kind that cannot."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from gp.data.building.images import checked_image
from gp.data.sample import BadSample
from tests.support.viscot_files import drawn


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_bytes_are_kept(kind, suffix):
    data = drawn(40, 30, "x", kind)
    for decode in (True, False):
        image = checked_image(data, "x", decode)
        assert image.data is data and (image.suffix, image.size) == (suffix, (40, 30))


def test_larger_images_are_reduced_and_smaller_ones_are_not():
    data = drawn(400, 300, "x", "PNG")
    image = checked_image(data, "x", max_pixels=10_000)
    with Image.open(io.BytesIO(image.data)) as reduced:
        assert reduced.format == "JPEG" and reduced.size == (115, 86)
    assert (image.suffix, image.size) == ("jpg", (400, 300))
    assert checked_image(data, "x", max_pixels=120_000).data is data


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated_images_do_not_decode(kind):
    """Cut anywhere behind the header. A JPEG without its last bytes still decodes everywhere: that is accepted."""
    data = drawn(64, 48, "x", kind)
    with pytest.raises(BadSample, match="image does not open"):
        checked_image(data[: len(data) * 3 // 4], "x")


@pytest.mark.parametrize("data", [b"", b"no image", drawn(40, 30)[:50]])
def test_what_is_no_image(data):
    for decode in (True, False):
        with pytest.raises(BadSample, match="x: image does not open"):
            checked_image(data, "x", decode)


def test_other_formats():
    with pytest.raises(BadSample, match=r"JPEG, PNG or WebP, it begins with b'BM"):
        checked_image(drawn(4, 3, "x", "BMP"), "x")


def test_a_decompression_bomb_is_not_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for decode in (True, False):
        with pytest.raises(BadSample, match="image too large"):
            checked_image(drawn(100, 100), "x", decode)
