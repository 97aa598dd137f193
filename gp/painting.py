"""Shows on an image which of its visual tokens were kept."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from gp.boxes import WHOLE_IMAGE, Frame

DROPPED_BRIGHTNESS = 0.25
DROPPED_COLOR_SHARE = 0.3  # what is left of the colour of a dropped token, the rest is grey


def paint_tokens(image: Image.Image, keep_mask: Tensor, frame: Frame = WHOLE_IMAGE) -> Image.Image:
    """Shows on a copy of the image which of its visual tokens were kept.

    Args:
        image: any size and mode.
        keep_mask: [h, w] bool or 0..1 on any device, True = kept.
        frame: what the grid is stretched over, as fractions of the image; pixels outside it were not seen.

    Returns:
        RGB, the size of `image`; what was not seen looks as what was dropped.

    Raises:
        ValueError: a keep mask that is not a grid.
    """
    if keep_mask.ndim != 2 or keep_mask.numel() == 0:
        raise ValueError(f"keep_mask must be [h, w] with at least one token, got {list(keep_mask.shape)}")
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    kept = np.pad(keep_mask.detach().float().cpu().numpy() > 0.5, 1)  # a border of tokens that do not exist
    left, top, right, bottom = frame
    rows = _tokens_behind(pixels.shape[0], top, bottom, keep_mask.shape[0]) + 1
    columns = _tokens_behind(pixels.shape[1], left, right, keep_mask.shape[1]) + 1
    is_kept = kept[rows][:, columns, None]  # [height, width, 1]
    grey = pixels.mean(axis=2, keepdims=True)
    dimmed = DROPPED_BRIGHTNESS * (DROPPED_COLOR_SHARE * pixels + (1 - DROPPED_COLOR_SHARE) * grey)
    return Image.fromarray(np.where(is_kept, pixels, dimmed).round().astype(np.uint8))


def outline(image: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Draws a frame into an RGB image, in two tones that show on every colour.

    Args:
        image: is changed.
        box: left, top, right, bottom in pixels; the ends are exclusive.
    """
    draw, width = ImageDraw.Draw(image), max(1, min(image.size) // 200)
    left, top, right, bottom = box
    for inset, color in ((0, "black"), (width, "white")):
        corners = left + inset, top + inset, right - 1 - inset, bottom - 1 - inset
        if corners[0] <= corners[2] and corners[1] <= corners[3]:
            draw.rectangle(corners, outline=color, width=width)


def _tokens_behind(num_pixels: int, start: float, stop: float, num_tokens: int) -> np.ndarray:
    """Row or column of the token at each pixel's centre; -1 or num_tokens outside the frame."""
    centres = (np.arange(num_pixels) + 0.5) / num_pixels
    return np.floor((centres - start) / (stop - start) * num_tokens).clip(-1, num_tokens).astype(int)
