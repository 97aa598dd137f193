"""Pictures of samples: dropped visual tokens darkened, evidence boxes outlined, lines of text below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gp.boxes import WHOLE_IMAGE, Frame
from gp.data.sample import Sample
from gp.painting import paint_tokens

BOX_RGB = (255, 221, 0)  # the outer line; beside the inner one it shows on every colour
BOX_INNER_RGB = (0, 0, 0)
CAPTION_PX = 14


def paint_sample(
    sample: Sample, keep_mask: Tensor, frame: Frame = WHOLE_IMAGE, max_side_px: int | None = None
) -> Image.Image:
    """Paints kept tokens and evidence boxes of a sample.

    Args:
        sample: with its image.
        keep_mask, frame: see `gp.painting.paint_tokens`.
        max_side_px: longest side of the picture; a larger image is reduced to it. None: any.
    """
    image: Any = sample.image  # not None
    if max_side_px is not None and (scale := max_side_px / max(image.size)) < 1:
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    painted = paint_tokens(image, keep_mask, frame)
    outline_boxes(painted, sample.boxes_xyxy_px, (sample.width, sample.height))
    return painted


def outline_boxes(image: Image.Image, boxes_xyxy_px: Sequence[Sequence[float]], size: tuple[int, int]) -> None:
    """Draws boxes on an RGB image, in place, with a two-tone line that stays visible when the picture is shown small.

    Args:
        image: any size.
        boxes_xyxy_px: x1, y1, x2, y2 each; what lies beyond the image is moved to its border.
        size: width and height in pixels of the image that the boxes were drawn for.
    """
    draw = ImageDraw.Draw(image)
    line_px = max(1, round(max(image.size) / 150))
    across, down = image.width / size[0], image.height / size[1]
    for x1, y1, x2, y2 in boxes_xyxy_px:
        left, right = (min(max(x * across, 0), image.width - 1) for x in (x1, x2))
        top, bottom = (min(max(y * down, 0), image.height - 1) for y in (y1, y2))
        right, bottom = max(right, left), max(bottom, top)
        draw.rectangle((left, top, right, bottom), outline=BOX_RGB, width=line_px)
        inner = left + line_px, top + line_px, right - line_px, bottom - line_px
        if inner[0] <= inner[2] and inner[1] <= inner[3]:
            draw.rectangle(inner, outline=BOX_INNER_RGB, width=line_px)


def add_caption(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """Puts lines of text below an RGB image, black on white, each broken where the picture ends."""
    font = ImageFont.load_default(CAPTION_PX)
    broken = [part for line in lines for part in _broken(line, font, image.width - 8)]
    row_px = CAPTION_PX + 4
    out = Image.new("RGB", (image.width, image.height + row_px * len(broken) + 4), (255, 255, 255))
    out.paste(image)
    draw = ImageDraw.Draw(out)
    for number, text in enumerate(broken):
        draw.text((4, image.height + 2 + row_px * number), text, fill=(0, 0, 0), font=font)
    return out


def _broken(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> list[str]:
    """Lines of a text that are no wider than the picture, as far as its words allow."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
