"""From a file's bytes to the picture that a person sees: the one way for training, evaluation, building and asking."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Pillow would also open PostScript, which starts Ghostscript: code that arrives as a picture.
FORMATS = ("JPEG", "PNG", "WEBP")
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # one channel of 16 bits, as Pillow opens a deep grey PNG
LEVELS_PER_STEP = 257  # 65535 / 255
NOTES = {"exif", "Raw profile type exif"}  # where Pillow finds EXIF in the header of a PNG
UPRIGHT, SIDEWAYS = 1, (5, 6, 7, 8)  # values of EXIF's orientation


class BadPicture(ValueError):
    """Bytes that are no usable picture.

    Args:
        reason: short and the same for all pictures of a kind.
        detail: what was expected and what came.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})"


def read_picture(source: bytes | str | Path) -> Image.Image:
    """Decodes a JPEG, PNG or WebP file; see `to_rgb`.

    Args:
        source: its bytes, or its path.

    Returns:
        RGB, 8 bits a channel.

    Raises:
        BadPicture: another format, a damaged file, or one so large that Pillow takes it for an attack.
        OSError: the path cannot be read.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        with open_picture(data) as image:
            return to_rgb(image)
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files; nothing else runs here
        raise bad_picture(error, data) from error


def open_picture(data: bytes) -> Image.Image:
    """Reads the header only; raises what Pillow raises, which `bad_picture` translates."""
    return Image.open(io.BytesIO(data), formats=FORMATS)


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture upright, without transparency, 8 bits a channel.

    The camera's note of its orientation is followed. Transparent parts show white, as in transformers'
    `convert_to_rgb`. Of 16-bit grey the upper 8 bits are kept: Pillow's own conversion clips it to white.
    """
    if _orientation(image) != UPRIGHT:
        image = ImageOps.exif_transpose(image)
    if image.mode in DEEP_MODES:
        image = _shallow(image)
    if "A" in image.getbands() or "a" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in pixels as a person sees it; nothing is decoded."""
    return (image.height, image.width) if _orientation(image) in SIDEWAYS else image.size


def bad_picture(error: Exception, data: bytes) -> BadPicture:
    """Says what an error of Pillow about a file's bytes means."""
    if isinstance(error, BadPicture):
        return error
    if isinstance(error, Image.DecompressionBombError):
        return BadPicture("image too large", str(error))
    if isinstance(error, UnidentifiedImageError):  # its own message is an object's address
        return BadPicture("image does not open", f"expected JPEG, PNG or WebP, it begins with {data[:8]!r}")
    return BadPicture("image does not open", f"{type(error).__name__}: {error}")


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and not NOTES.intersection(image.info):
        return UPRIGHT  # Pillow would decode all of it to look for a note behind the pixels
    return image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)


def _shallow(image: Image.Image) -> Image.Image:
    levels = np.asarray(image).astype(np.int64)
    grey = Image.fromarray(np.clip(levels / LEVELS_PER_STEP + 0.5, 0, 255).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
    return grey
