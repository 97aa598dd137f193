"""Pictures from whatever a caller holds: PIL images, files, arrays, and addresses if they are allowed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from PIL import Image
from torch import Tensor

from gp.pictures import BadPicture, read_picture, to_rgb

EXPECTED = "a PIL image, a path, or a uint8 array [height, width, 3]"
TIMEOUT_S = 20
MAX_BYTES = 64 << 20  # of a download


def read_images(images: Any, allow_urls: bool = False) -> list[Image.Image]:
    """One picture, or several in their order.

    Args:
        images: one of `EXPECTED`, or a list of them; [] for none.
        allow_urls: download pictures whose address is given.

    Raises:
        TypeError: something else.
        ValueError: an array of another shape or type, a file that is no JPEG, PNG or WebP, an address without
            `allow_urls`.
        OSError: no such file, or one that cannot be downloaded.
    """
    if isinstance(images, list | tuple):
        return [read_image(image, allow_urls) for image in images]
    return [read_image(images, allow_urls)]


def read_image(image: Any, allow_urls: bool = False) -> Image.Image:
    """One picture, upright and RGB as in training; arguments and errors as for `read_images`."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, np.ndarray | Tensor):
        return _of_array(np.asarray(image))
    if not isinstance(image, str | Path):
        raise TypeError(f"expected {EXPECTED}, or a list of them; got {_kind(image)}")
    is_address = isinstance(image, str) and image.startswith(("http://", "https://"))
    try:
        return read_picture(_download(image, allow_urls) if is_address else image)
    except BadPicture as error:
        raise ValueError(f"{image}: {error}") from error


def _of_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(f"expected a uint8 array [height, width, 3], got {array.dtype} {list(array.shape)}")
    return Image.fromarray(array)


def _download(address: Any, allowed: bool) -> bytes:
    if not allowed:
        raise ValueError(
            f"{address}: addresses are not opened unless you say so, because whoever writes them would decide what "
            "this machine asks for: pass allow_urls=True, or download the picture yourself"
        )
    with urlopen(address, timeout=TIMEOUT_S) as answer:  # http and https only, see above
        content = answer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{address}: more than {MAX_BYTES >> 20} MiB")
    return content


def _kind(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes) and value:
        return f"{type(value).__name__} of {type(value[0]).__name__}"
    return "None" if value is None else type(value).__name__
