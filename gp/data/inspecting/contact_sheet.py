"""A page of small images with their boxes, questions and answers."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from random import Random

from PIL import Image, ImageDraw, ImageFont

from gp.data.inspecting.reading import StoredRecord
from gp.data.painting import outline_boxes

COLUMNS = 5
CELL = 240  # longest side of an image, pixels
CAPTION = 46  # pixels below it
GAP = 8


class Chosen:
    """Keeps a uniform draw of the records that pass by; the same ones in the same order give the same draw.

    Args:
        count: number to keep.
    """

    def __init__(self, count: int = 20):
        self.count = count
        self.records: list[StoredRecord] = []
        self._seen = 0
        self._rng = Random(0)

    def __call__(self, record: StoredRecord) -> None:
        self._seen += 1
        if len(self.records) < self.count:
            self.records.append(record)
        elif (place := self._rng.randrange(self._seen)) < self.count:
            self.records[place] = record


def contact_sheet(records: Sequence[StoredRecord]) -> Image.Image:
    """Draws the first question of every record: its boxes on the image, its text and answer below."""
    rows = -(-len(records) // COLUMNS)
    width, height = GAP + COLUMNS * (CELL + GAP), GAP + rows * (CELL + CAPTION + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    for number, record in enumerate(records):
        corner = GAP + number % COLUMNS * (CELL + GAP), GAP + number // COLUMNS * (CELL + CAPTION + GAP)
        picture = _with_boxes(record)
        sheet.paste(picture, (corner[0] + (CELL - picture.width) // 2, corner[1] + (CELL - picture.height) // 2))
        _caption(sheet, record, corner)
    return sheet


def _with_boxes(record: StoredRecord) -> Image.Image:
    with Image.open(io.BytesIO(record.image)) as image:
        picture = image.convert("RGB")
    picture.thumbnail((CELL, CELL))
    row = record.rows[0]
    outline_boxes(picture, row["boxes_xyxy_px"], (row["width"], row["height"]))
    return picture


def _caption(sheet: Image.Image, record: StoredRecord, corner: tuple[int, int]) -> None:
    row = record.rows[0]
    lines = textwrap.wrap(f"{row['question']} -> {row['answer']}", 40)[:3]
    font = ImageFont.load_default(12)
    ImageDraw.Draw(sheet).multiline_text((corner[0], corner[1] + CELL + 2), "\n".join(lines), fill="black", font=font)
