"""The bytes of one image: checked, and re-encoded where it is larger than wanted."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

from gp.data.building.jpeg import without_scans
from gp.data.sample import BadSample
from gp.pictures import bad_picture, open_picture, to_rgb, upright_size

SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
JPEG_QUALITY = 95
TABLES_KEPT = 1024


@dataclass(frozen=True)
class CheckedImage:
    """An image ready for the shard.

    Args:
        data: the published bytes, or re-encoded ones.
        suffix: that of the bytes' format, whatever the file was called.
        size: width and height as a person sees it, before any reduction, pixels.
    """

    data: bytes
    suffix: str
    size: tuple[int, int]


def checked_image(data: bytes, where: str, decode: bool = True, max_pixels: int | None = None) -> CheckedImage:
    """Looks at an image.

    Args:
        data: bytes of a file.
        where: for messages.
        decode: see that it decodes; else only its header is read. A JPEG whose markers are all there is decoded without
            its compressed data: flaws in those are no error to libjpeg as Pillow uses it, so the verdict is the same.
        max_pixels: an image of more is reduced to at most so many and becomes a JPEG; None: none is.

    Raises:
        BadSample: no JPEG, PNG or WebP, a damaged one, or one so large that Pillow takes it for an attack.
    """
    try:
        with open_picture(data) as image:
            suffix, size = SUFFIXES[str(image.format)], upright_size(image)
            if max_pixels is not None and size[0] * size[1] > max_pixels:
                return CheckedImage(_reduced(image, max_pixels), "jpg", size)
            if decode:
                _decode(image, data)
            return CheckedImage(data, suffix, size)
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files; nothing else runs here
        bad = bad_picture(error, data)
        raise BadSample(bad.reason, where, bad.detail) from error


def _decode(image: Image.Image, data: bytes) -> None:
    """Decoding to see that it can be done; of a JPEG with all of its parts, only of what can fail in it."""
    rest = without_scans(data) if image.format == "JPEG" else None
    if rest is None or not _decodes(rest):
        _load(image)  # whether it is damaged, and how, the decoder shall say that sees all of it


@lru_cache(maxsize=TABLES_KEPT)
def _decodes(rest: bytes) -> bool:
    """Images of one encoder often have the same tables: these are tried once."""
    try:
        with open_picture(rest) as image:
            _load(image)
    except Exception:
        return False
    return True


def _load(image: Image.Image) -> None:
    """A JPEG is decoded to an eighth, in grey: all of its data are read, most of the arithmetic is saved."""
    image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
    image.load()


def _reduced(image: Image.Image, max_pixels: int) -> bytes:
    picture = to_rgb(image)
    scale = (max_pixels / (picture.width * picture.height)) ** 0.5
    size = max(1, int(picture.width * scale)), max(1, int(picture.height * scale))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
