"""Other views of a scene: as a JPEG file keeps it, a half-size copy of all of it, and a crop of it at full size."""

import io

import numpy as np
from PIL import Image

from gp.embedded.cards.layout import TOKEN_PX, Box

JPEG_QUALITY = 95  # 90 costs two points of the halftone numbers, 75 a tenth of them


def jpeg_bytes(image: Image.Image) -> bytes:
    """The image as a JPEG file of quality 95."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def through_jpeg(image: Image.Image) -> Image.Image:
    """What a JPEG file of quality 95 keeps of an image."""
    return Image.open(io.BytesIO(jpeg_bytes(image))).convert("RGB")


def half_copy(image: Image.Image) -> Image.Image:
    """The image at half its sides, by the filter of Qwen's image processor."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def half_box(box: Box) -> Box:
    """Where a box lies in the half-size copy: every pixel that it touches."""
    x1, y1, x2, y2 = box
    return x1 // 2, y1 // 2, x2 // 2, y2 // 2


def draw_crop(
    rng: np.random.Generator, image: Image.Image, box: Box, rows: int, columns: int
) -> tuple[int, int] | None:
    """Where a crop of `rows` x `columns` visual tokens may lie that holds a box: (row, column) of its first token.

    It lies on the grid of visual tokens, anywhere that holds all of the box; None if it is too small for that.
    """
    x1, y1, x2, y2 = (edge // TOKEN_PX for edge in box)
    top, bottom = max(0, y2 - rows + 1), min(y1, image.height // TOKEN_PX - rows)
    left, right = max(0, x2 - columns + 1), min(x1, image.width // TOKEN_PX - columns)
    if top > bottom or left > right:
        return None
    return int(rng.integers(top, bottom + 1)), int(rng.integers(left, right + 1))


def crop(image: Image.Image, place: tuple[int, int], rows: int, columns: int) -> Image.Image:
    """The crop of that size whose first token is at `place` (row, column)."""
    x, y = place[1] * TOKEN_PX, place[0] * TOKEN_PX
    return image.crop((x, y, x + columns * TOKEN_PX, y + rows * TOKEN_PX))


def crop_box(box: Box, place: tuple[int, int]) -> Box:
    """Where a box lies in a crop."""
    x, y = place[1] * TOKEN_PX, place[0] * TOKEN_PX
    return box[0] - x, box[1] - y, box[2] - x, box[3] - y
