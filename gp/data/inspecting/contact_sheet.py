"""A page of images with their boxes, titles, questions and answers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from random import Random

from PIL import Image, ImageDraw, ImageFont

from gp.data.painting import outline_boxes
from gp.data.sample import Sample

COLUMNS = 5
CELL = 240  # longest side of an image, pixels; smaller ones are enlarged
LINES, LINE = 5, 15  # of text below it; pixels of each
CAPTION = LINES * LINE + 4
LETTERS = 40
GAP = 8


class Chosen:
    """Keeps a uniform draw of the samples that pass by; the same ones in the same order give the same draw.

    Args:
        count: number to keep.
    """

    def __init__(self, count: int = 20):
        self.count = count
        self.samples: list[Sample] = []
        self._seen = 0
        self._rng = Random(0)

    def __call__(self, sample: Sample) -> None:
        self._seen += 1
        if len(self.samples) < self.count:
            self.samples.append(sample)
        elif (place := self._rng.randrange(self._seen)) < self.count:
            self.samples[place] = sample


def contact_sheet(samples: Sequence[Sample]) -> Image.Image:
    """Draws every sample: its boxes on the image; set, split, shard and key, question and answer below."""
    rows = -(-len(samples) // COLUMNS)
    width, height = GAP + COLUMNS * (CELL + GAP), GAP + rows * (CELL + CAPTION + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    for number, sample in enumerate(samples):
        corner = GAP + number % COLUMNS * (CELL + GAP), GAP + number // COLUMNS * (CELL + CAPTION + GAP)
        picture = _with_boxes(sample)
        sheet.paste(picture, (corner[0] + (CELL - picture.width) // 2, corner[1] + (CELL - picture.height) // 2))
        _caption(sheet, sample, corner)
    return sheet


def _with_boxes(sample: Sample) -> Image.Image:
    image = sample.image
    if image is None:
        raise ValueError(f"{sample.id}: its image was dropped")
    scale = CELL / max(image.size)
    picture = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    outline_boxes(picture, sample.boxes_xyxy_px, (sample.width, sample.height))
    return picture


def _caption(sheet: Image.Image, sample: Sample, corner: tuple[int, int]) -> None:
    titles = [f"{sample.dataset}, {sample.split}", sample.id]
    titles = [title if len(title) <= LETTERS else f"...{title[3 - LETTERS :]}" for title in titles]
    text = textwrap.wrap(f"{sample.question} -> {sample.answer}", LETTERS)
    left = LINES - len(titles)
    lines = titles + (text if len(text) <= left else [*text[: left - 1], f"{text[left - 1][: LETTERS - 4]} ..."])
    font = ImageFont.load_default(12)
    ImageDraw.Draw(sheet).multiline_text((corner[0], corner[1] + CELL + 2), "\n".join(lines), fill="black", font=font)
