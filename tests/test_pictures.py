"""From bytes to the picture that a person sees, against transformers and against pixels made here."""

from __future__ import annotations

import io
import subprocess

import numpy as np
import pytest
from PIL import Image
from transformers.image_transforms import convert_to_rgb

from gp.pictures import BadPicture, open_picture, read_picture, to_rgb, upright_size

ORIENTATION = 0x0112
# how a viewer turns what is stored, by EXIF's orientation (Exif 2.32, 4.6.4)
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def stored(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def some_pixels(height: int = 6, width: int = 9, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_the_cameras_orientation_is_followed(kind, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    flat = np.kron(some_pixels(3, 4), np.ones((16, 16, 1), np.uint8))  # blocks that JPEG keeps
    options = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}[kind]
    data = stored(Image.fromarray(flat), kind, exif=exif, **options)
    expected = TURNS[orientation](flat)
    picture = read_picture(data)
    assert picture.size == expected.shape[1::-1] == upright_size(open_picture(data))
    assert np.abs(np.asarray(picture).astype(int) - expected).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "1"])
def test_transparency_shows_white_as_in_transformers(mode):
    """A palette, RGB and grey keep theirs as one clear colour."""
    if mode in ("RGBA", "LA"):
        image = Image.fromarray(some_pixels(channels=4)).convert(mode)
    else:
        image = Image.fromarray(some_pixels()).convert(mode)
    first = image.getpixel((0, 0))
    data = stored(image, transparency=first) if mode in ("P", "RGB", "L") else stored(image)
    with Image.open(io.BytesIO(data)) as opened:
        expected = convert_to_rgb(opened, return_numpy=True)
    assert np.array_equal(np.asarray(read_picture(data)), expected)
    if mode in ("P", "RGB", "L"):
        assert read_picture(data).getpixel((0, 0)) == (255, 255, 255)


def test_deep_grey_is_scaled_and_not_clipped():
    levels = np.array([[0, 256, 257, 32768, 65279, 65535]], dtype=np.uint16)
    picture = np.asarray(read_picture(stored(Image.fromarray(levels))))
    assert picture[0, :, 0].tolist() == [0, 1, 1, 128, 254, 255]
    assert (picture == picture[..., :1]).all()


def test_the_callers_image_stays_as_it_is():
    image = Image.new("RGBA", (3, 2), (1, 2, 3, 0))
    image.getexif()[ORIENTATION] = 6
    assert to_rgb(image).size == (2, 3)
    assert (image.mode, image.size, image.getexif()[ORIENTATION]) == ("RGBA", (3, 2), 6)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "EPS", "PPM", "ICO", "TGA"])
def test_other_formats_are_not_even_tried(kind, monkeypatch):
    """Some of them are programs: PostScript would start Ghostscript."""
    data = stored(Image.new("RGB", (32, 32)), kind)

    def refuse(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "check_call", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(BadPicture, match=r"does not open \(expected JPEG, PNG or WebP, it begins with b'"):
        read_picture(data)


def test_damage_and_absurd_sizes_have_a_reason(monkeypatch):
    data = stored(Image.new("RGB", (64, 64)), "JPEG")
    for wrong in (b"", data[:40], data[:-100]):
        with pytest.raises(BadPicture, match="image does not open"):
            read_picture(wrong)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadPicture, match="image too large"):
        read_picture(data)


def test_a_path_is_read_and_a_missing_one_is_named(tmp_path):
    (tmp_path / "a.jfif").write_bytes(stored(Image.new("RGB", (5, 4), "red"), "JPEG"))
    assert read_picture(tmp_path / "a.jfif").size == (5, 4)
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_picture(tmp_path / "none.png")
