"""Shows on an image which of its visual tokens were kept, and how important they were found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from gp.boxes import WHOLE_IMAGE, Frame

DROPPED_BRIGHTNESS = 0.4  # dark enough to stand back, bright enough to be recognised
DROPPED_COLOR_SHARE = 0.3  # what is left of the colour of a dropped token, the rest is grey
HEAT_COLORS = "inferno"  # of matplotlib: dark to bright, also without colour vision
HEAT_SHARE = 0.6  # of these colours; the rest is the image in grey


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
    is_kept = _behind_pixels(image, keep_mask, frame)[..., None] > 0.5  # [height, width, 1]
    grey = pixels.mean(axis=2, keepdims=True)
    dimmed = DROPPED_BRIGHTNESS * (DROPPED_COLOR_SHARE * pixels + (1 - DROPPED_COLOR_SHARE) * grey)
    return Image.fromarray(np.where(is_kept, pixels, dimmed).round().astype(np.uint8))


def paint_heat(image: Image.Image, heat: Tensor, frame: Frame = WHOLE_IMAGE) -> Image.Image:
    """Paints the importance of the visual tokens over a grey copy of the image.

    Args:
        image: any size and mode.
        heat: [h, w] float in 0..1 on any device.
        frame: as of `paint_tokens`.

    Returns:
        RGB, the size of `image`; what was not seen has the colour of 0.

    Raises:
        ValueError: a heat map that is not a grid.
    """
    from matplotlib import colormaps  # half a second, which others do not wait for

    if heat.ndim != 2 or heat.numel() == 0:
        raise ValueError(f"heat must be [h, w] with at least one token, got {list(heat.shape)}")
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None]  # [height, width, 1]
    colors = 255 * colormaps[HEAT_COLORS](_behind_pixels(image, heat, frame).clip(0, 1))[..., :3]
    return Image.fromarray((HEAT_SHARE * colors + (1 - HEAT_SHARE) * grey).round().astype(np.uint8))


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row, tops aligned, on white; RGB; a single one as it is. At least one."""
    if len(pictures) == 1:
        return pictures[0]
    row = Image.new("RGB", (sum(one.width for one in pictures), max(one.height for one in pictures)), "white")
    left = 0
    for one in pictures:
        row.paste(one, (left, 0))
        left += one.width
    return row


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


def _behind_pixels(image: Image.Image, values: Tensor, frame: Frame) -> np.ndarray:
    """The value of the token at each pixel's centre, float32 [height, width]; 0 outside the frame."""
    padded = np.pad(values.detach().float().cpu().numpy(), 1)  # a border of tokens that do not exist
    left, top, right, bottom = frame
    rows = _tokens_behind(image.height, top, bottom, values.shape[0]) + 1
    columns = _tokens_behind(image.width, left, right, values.shape[1]) + 1
    return padded[rows][:, columns]


def _tokens_behind(num_pixels: int, start: float, stop: float, num_tokens: int) -> np.ndarray:
    """Row or column of the token at each pixel's centre; -1 or num_tokens outside the frame."""
    centres = (np.arange(num_pixels) + 0.5) / num_pixels
    return np.floor((centres - start) / (stop - start) * num_tokens).clip(-1, num_tokens).astype(int)
