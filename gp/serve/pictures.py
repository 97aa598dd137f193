"""Pictures of a request: files in data urls, held to their limits before they are decoded, and addresses if allowed."""

from __future__ import annotations

import base64
import binascii
import warnings
from typing import Any

from PIL import Image

from gp.pictures import bad_picture, open_picture
from gp.serve.options import ServeConfig
from gp.serve.refusing import Refused, bad

CODE = "invalid_image"
MEGA = 1_000_000


def read_address(given: Any, where: str, config: ServeConfig) -> bytes | str:
    """Bytes of an image file, or its address if addresses are allowed.

    Args:
        given: `{"url": ...}`, or the url alone.
        where: the key in the request.
        config: limits, and whether addresses are allowed.

    Raises:
        Refused: no data url of a JPEG, PNG or WebP file, one that is too large, or an address that is not allowed.
    """
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str):
        raise bad(where, "expected {'url': 'data:image/...;base64,...'}", CODE)
    if url.startswith(("http://", "https://")):
        if not config.allow_urls:
            raise bad(where, "this server opens no addresses: send the image as a data url", CODE)
        return url
    content = decode_data_url(url, where)
    check_header(content, where, config.limits.image_megapixels)
    return content


def decode_data_url(url: str, where: str) -> bytes:
    """The bytes of `data:image/...;base64,...`; Refused if it is none."""
    head, comma, text = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise bad(where, f"expected data:image/...;base64,..., got {url[:40]!r}", CODE)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad(where, f"not base64: {error}", CODE) from error


def check_header(content: bytes, where: str, most_megapixels: float) -> None:
    """Refused unless the bytes begin like a picture of at most so many pixels; nothing is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is the one that counts
            with open_picture(content) as image:
                width, height = image.size
    except Exception as error:  # Pillow's readers raise almost anything on damaged files
        raise bad(where, str(bad_picture(error, content)), CODE) from error
    if width * height > most_megapixels * MEGA:
        size = f"{width} x {height} px"
        raise Refused(400, f"{where}: at most {most_megapixels:g} megapixels, got {size}", where, "image_too_large")
