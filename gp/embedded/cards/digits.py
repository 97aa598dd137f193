"""Two handwritten digits on a card, in ink that a half-size copy keeps or loses.

    plain     black ink, 22 to 28 px high
    large     black ink, 32 to 52 px high, on cards that have the room; a half-size copy keeps it readable
    halftone  the card is .72 as bright under the number, and ink is .72 +- .28 in a checkerboard of single pixels. Its
              mean is the ground's, so a half-size copy (any filter that averages) shows the ground alone: the digits
              can be read at full size and not at half. 22 to 28 px high.

The checkerboard's phase is tied to the image: a pixel is bright where (x + y) % 2 == 0. Cut at multiples of a visual
token (28 px) a crop keeps the phase; cut at odd offsets it would flip it, which the model was not trained on.
"""

import math
from functools import lru_cache

import numpy as np
from PIL import Image

from gp.embedded.cards.looks import INK_RGB
from gp.embedded.cards.material import Material, load_material

INKS = ("plain", "large", "halftone")
CELL_PX = 28
MIN_DIGIT_PX, MAX_LARGE_PX = 22, 52
MIN_LARGE_PX = 32
LARGE_CELL_PX = 42  # the least cell for a large digit
HALFTONE_MARGIN_PX = 14  # card left and right of a halftone number, so that round and pointed ends do not cut it
GROUND, SWING = 0.72, 0.28
SCAN_PX = 28


def possible_inks(width: int, height: int) -> list[str]:
    """Inks for which a card of this size in pixels has the room."""
    inks = ["plain"]
    if min(width // 2, height) >= LARGE_CELL_PX:
        inks.append("large")
    if width >= 2 * (CELL_PX + HALFTONE_MARGIN_PX):
        inks.append("halftone")
    return inks


def paint_number(
    region: np.ndarray,
    inside: np.ndarray,
    fill: np.ndarray,
    corner: tuple[int, int],
    ink: str,
    number: np.ndarray,
) -> None:
    """Paints a number into a card in place.

    Args:
        region: float32 [height, width, 3], the card's pixels.
        inside: [height, width, 1] in 0..1, coverage of its silhouette.
        fill: float32 [3], its colour.
        corner: (x, y) of the card in the image.
        ink: of INKS.
        number: float32 [cell, 2 * cell] in 0..1, amount of ink of both digits.
    """
    height, width, _ = region.shape
    cell = len(number)
    # On the 14 px grid of the cards: digits keep their place relative to the visual tokens.
    x = (width - 2 * cell) // 2 // 14 * 14
    y = (height - cell) // 2 // 14 * 14
    zone = region[y : y + cell, x : x + 2 * cell]
    if ink != "halftone":
        zone += (INK_RGB - zone) * number[..., None]
        return
    rows, columns = np.ogrid[corner[1] + y : corner[1] + y + cell, corner[0] + x : corner[0] + x + 2 * cell]
    sign = 1.0 - 2.0 * ((rows + columns) % 2).astype(np.float32)
    tone = GROUND + SWING * sign * number
    zone += (fill * tone[..., None] - zone) * inside[y : y + cell, x : x + 2 * cell]


def draw_number(
    material: Material, picks: np.ndarray, ink: str, width: int, height: int, rng: np.random.Generator, augment: bool
) -> np.ndarray:
    """Ink of two digits side by side for a card of this size, float32 [cell, 2 * cell] in 0..1.

    Args:
        picks: two row numbers of the material's scans.
        augment: distort them (rotation, size, stroke weight, ink strength).
    """
    cell = min(width // 2, height) if ink == "large" else CELL_PX
    low, high = (MIN_LARGE_PX, min(cell, MAX_LARGE_PX)) if ink == "large" else (MIN_DIGIT_PX, CELL_PX)
    size = int(rng.integers(low, high + 1))
    return np.concatenate([_draw_digit(material, int(p), cell, size, rng, augment) for p in picks], axis=1)


def _draw_digit(material: Material, pick: int, cell: int, size: int, rng: np.random.Generator, augment: bool):
    """Ink of one digit of about `size` px at a random place in its cell, float32 [cell, cell] in 0..1."""
    left, top = (int(v) for v in rng.integers(0, cell - size + 1, size=2))
    if augment:
        return _distort(material, pick, cell, size, (left, top), rng)
    ink = np.zeros((cell, cell), dtype=np.float32)
    ink[top : top + size, left : left + size] = _resized_scan(material.split, pick, size)
    return ink


def _distort(material, pick, cell, size, corner, rng) -> np.ndarray:
    angle, shear = rng.uniform(-0.16, 0.16), rng.uniform(-0.12, 0.12)
    scale_x, scale_y = rng.uniform(0.9, 1.06, size=2) * size / SCAN_PX
    # PIL maps output to input, so this is the inverse map about the centre of the digit.
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = cos / scale_x, (sin + shear) / scale_x
    d, e = -sin / scale_y, cos / scale_y
    middle = SCAN_PX / 2
    x, y = (edge + size / 2 + rng.uniform(-0.7, 0.7) for edge in corner)
    matrix = (a, b, middle - a * x - b * y, d, e, middle - d * x - e * y)
    source = _scan_image(material.split, pick)
    warped = source.transform((cell, cell), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    # The exponent makes strokes bolder or thinner, the factor the ink paler.
    ink = np.clip(np.asarray(warped), 0.0, 1.0) ** np.float32(rng.uniform(0.7, 1.4))
    return ink * np.float32(rng.uniform(0.75, 1.0))


@lru_cache(maxsize=20_000)
def _resized_scan(split: str, pick: int, size: int) -> np.ndarray:
    scan = Image.fromarray(load_material(split).scans[pick])
    return np.clip(np.asarray(scan.resize((size, size), Image.Resampling.BICUBIC)), 0.0, 1.0)


@lru_cache(maxsize=2_000)
def _scan_image(split: str, pick: int) -> Image.Image:
    return Image.fromarray(_resized_scan(split, pick, SCAN_PX))
