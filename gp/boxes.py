"""Boxes: pixel and normalised frames, clipping, and the evidence mask that they draw on a grid of visual tokens.

A box is (x1, y1, x2, y2), x to the right and y down. `boxes_xyxy_px` are in pixels of the image that was annotated,
`boxes_xyxy_norm` are divided by its width and height. All functions take n boxes as a [n, 4] tensor or as a sequence
of four numbers each, and compute in float64, where k / size * size stays on the right side of whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Boxes = Tensor | Sequence[Sequence[float]]
Frame = tuple[float, float, float, float]  # x1, y1, x2, y2 of what a grid of visual tokens lies over
WHOLE_IMAGE: Frame = (0.0, 0.0, 1.0, 1.0)


def normalize_boxes(boxes_xyxy_px: Boxes, width: int, height: int) -> Tensor:
    """Converts pixels to fractions of the image.

    Args:
        boxes_xyxy_px: [n, 4], pixels.
        width: of the annotated image, pixels, > 0.
        height: of the annotated image, pixels, > 0.

    Returns:
        boxes_xyxy_norm, float64 [n, 4]; inside 0..1 where the box is inside the image.

    Raises:
        ValueError: boxes of another shape, or an image without area.
    """
    return as_boxes(boxes_xyxy_px) / _scale(width, height)


def clip_boxes(boxes_xyxy_px: Boxes, width: int, height: int) -> Tensor:
    """The part of each box inside the image: corners moved into [0, width] x [0, height]; float64 [n, 4], pixels."""
    boxes = as_boxes(boxes_xyxy_px)
    return boxes.clamp(min=0).minimum(_scale(width, height))


def has_area(boxes_xyxy: Boxes) -> Tensor:
    """Tells which boxes are neither reversed nor without area, bool [n]. A box wholly outside fails once clipped."""
    boxes = as_boxes(boxes_xyxy)
    return (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


def boxes_in_frame(boxes_xyxy_norm: Boxes, frame: Frame) -> Tensor:
    """Boxes as fractions of what the model sees: the image with a border (`pad`), a part of it (crop), or all of it.

    Args:
        boxes_xyxy_norm: [n, 4], fractions of the image.
        frame: the rectangle that the grid of visual tokens lies over, as fractions of the image; it reaches beyond
            0..1 where the image was padded.

    Returns:
        boxes_xyxy_norm, float64 [m, 4], fractions of the frame, clipped to it; boxes that do not reach into it are
        left out. Over the whole image the boxes come back as they are.
    """
    boxes = as_boxes(boxes_xyxy_norm)
    if frame == WHOLE_IMAGE:
        return boxes
    x1, y1, x2, y2 = frame
    origin = torch.tensor([x1, y1, x1, y1], dtype=torch.float64)
    scale = torch.tensor([x2 - x1, y2 - y1, x2 - x1, y2 - y1], dtype=torch.float64)
    moved = (boxes - origin) / scale
    reaches_in = ((moved[:, 2:] > 0) & (moved[:, :2] < 1)).all(dim=1)
    return moved[reaches_in].clamp(0, 1)


def evidence_mask(boxes_xyxy_norm: Boxes, height: int, width: int) -> Tensor:
    """The visual tokens that the boxes touch.

    A box covers columns int(x1 * width) .. min(int(x2 * width), width - 1), ends included, and rows likewise; int()
    truncates toward zero. A box without area marks one token, a reversed one none, x1 = 1.0 none. Corners below
    -1 / width count from the far side, as a Python slice does: usually they mark nothing. The published masks are
    made that way, and boxes clipped to the image never meet it.

    Args:
        boxes_xyxy_norm: [n, 4], fractions of the image; n may be 0.
        height: rows of the grid of merged tokens.
        width: columns of the grid of merged tokens.

    Returns:
        Bool [height, width], True inside any box.

    Raises:
        ValueError: boxes of another shape or not finite, or a grid without tokens.

    Source: GlimpsePrune's reference masks; the lists of tests/golden/box_masks hold the rule.
    """
    if height < 1 or width < 1:
        raise ValueError(f"the grid must have at least one row and one column, got {height} x {width}")
    boxes = as_boxes(boxes_xyxy_norm)
    if not boxes.isfinite().all():
        raise ValueError(f"boxes_xyxy_norm must be finite, got {boxes.tolist()}")
    mask = torch.zeros(height, width, dtype=torch.bool)
    for x1, y1, x2, y2 in boxes.tolist():
        last_column = min(int(x2 * width), width - 1)
        last_row = min(int(y2 * height), height - 1)
        mask[int(y1 * height) : last_row + 1, int(x1 * width) : last_column + 1] = True
    return mask


def as_boxes(boxes_xyxy: Boxes) -> Tensor:
    """Any form of n boxes -> float64 [n, 4] on the CPU; ValueError for another shape."""
    boxes = torch.as_tensor(boxes_xyxy, dtype=torch.float64, device="cpu")
    if boxes.numel() == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"expected boxes of shape [n, 4] (x1, y1, x2, y2), got {list(boxes.shape)}")
    return boxes


def _scale(width: int, height: int) -> Tensor:
    if width <= 0 or height <= 0:
        raise ValueError(f"an image needs a positive width and height, got {width} x {height} px")
    return torch.tensor([width, height, width, height], dtype=torch.float64)
