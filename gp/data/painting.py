"""Pictures of what a model kept: dropped visual tokens darkened, evidence boxes outlined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from gp.boxes import WHOLE_IMAGE, Frame

DROPPED_BRIGHTNESS = 0.25
DROPPED_COLOR_SHARE = 0.3  # what is left of the colour of a dropped token, the rest is grey
BOX_RGB = (255, 64, 64)


def paint_tokens(
    image: Image.Image,
    keep_mask: Tensor,
    boxes_xyxy_px: Sequence[Sequence[float]] | None = None,
    frame: Frame = WHOLE_IMAGE,
) -> Image.Image:
    """Shows on the image which of its visual tokens were kept.

    Args:
        image: any size and mode.
        keep_mask: [h, w] bool or 0..1 on any device, True = kept.
        boxes_xyxy_px: evidence, outlined; pixels of `image`.
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
    painted = Image.fromarray(np.where(is_kept, pixels, dimmed).round().astype(np.uint8))
    _outline(painted, boxes_xyxy_px or ())
    return painted


def _tokens_behind(num_pixels: int, start: float, stop: float, num_tokens: int) -> np.ndarray:
    """Row or column of the token at each pixel's centre; -1 or num_tokens outside the frame."""
    centres = (np.arange(num_pixels) + 0.5) / num_pixels
    return np.floor((centres - start) / (stop - start) * num_tokens).clip(-1, num_tokens).astype(int)


def _outline(image: Image.Image, boxes_xyxy_px: Sequence[Sequence[float]]) -> None:
    """Draws the boxes in place, with a line that stays visible when the picture is shown small."""
    draw = ImageDraw.Draw(image)
    line_px = max(1, round(max(image.size) / 150))
    for x1, y1, x2, y2 in boxes_xyxy_px:
        right, bottom = min(x2, image.width - 1), min(y2, image.height - 1)
        draw.rectangle((max(x1, 0), max(y1, 0), max(right, x1), max(bottom, y1)), outline=BOX_RGB, width=line_px)
