"""What a card looks like without its number: colour and silhouette."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

COLORS_RGB = {
    "red": (232, 72, 64),
    "orange": (250, 152, 44),
    "yellow": (246, 226, 70),
    "green": (92, 196, 84),
    "cyan": (96, 220, 226),
    "blue": (92, 128, 240),
    "pink": (246, 150, 208),
    "white": (244, 244, 244),
}
SHAPES = ("rectangle", "oval", "hexagon")
INK_RGB = np.array([18, 18, 22], dtype=np.float32)
COLOR_NOISE = 10
SUPERSAMPLING = 4


def draw_fill(color: str, rng: np.random.Generator) -> np.ndarray:
    """A shade of a colour, float32 [3] in 0..255."""
    noise = rng.uniform(-COLOR_NOISE, COLOR_NOISE, size=3)
    return np.clip(np.array(COLORS_RGB[color]) + noise, 0, 255).astype(np.float32)


def paint_card(region: np.ndarray, shape: str, fill: np.ndarray) -> np.ndarray:
    """Blends an empty card into `region` (float32 [height, width, 3]) and returns its coverage [height, width, 1]."""
    height, width, _ = region.shape
    # A thin dark outline keeps a red card visible on a red photograph.
    region += (INK_RGB - region) * silhouette(shape, width, height, 0)[..., None]
    inside = silhouette(shape, width, height, 1)[..., None]
    region += (fill - region) * inside
    return inside


@lru_cache(maxsize=1_000)
def silhouette(shape: str, width: int, height: int, inset_px: int) -> np.ndarray:
    """Coverage of a card's silhouette, shrunk by `inset_px` on each side, float32 [height, width] in 0..1."""
    factor = SUPERSAMPLING  # drawn larger, then averaged: smooth edges
    wide, high, inset = width * factor, height * factor, inset_px * factor
    left, top, right, bottom = inset, inset, wide - 1 - inset, high - 1 - inset
    canvas = Image.new("L", (wide, high))
    draw = ImageDraw.Draw(canvas)
    if shape == "rectangle":
        draw.rectangle((left, top, right, bottom), fill=255)
    elif shape == "oval":
        draw.rounded_rectangle((left, top, right, bottom), radius=high // 2 - inset, fill=255)
    else:
        tip, middle = 10 * factor * height // 28, high // 2
        points = [(left, middle), (left + tip, top), (right - tip, top)]
        points += [(right, middle), (right - tip, bottom), (left + tip, bottom)]
        draw.polygon(points, fill=255)
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX), dtype=np.float32) / 255.0
