"""One question about one image, with its evidence boxes: from a raw record to a checked `Sample`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from gp.boxes import clip_boxes, has_area
from gp.data.shards import Record
from gp.pictures import BadPicture, read_picture

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
TEXT_FIELDS = ("question", "answer", "dataset", "split")
FIELDS = (*TEXT_FIELDS, "boxes_xyxy_px", "width", "height", "source_id")
MAX_PIXEL = 1e9  # far beyond any image; not finite numbers fail the comparison too
MAX_ASPECT_RATIO = 200  # the image processors of the Qwen family refuse more


class BadSample(ValueError):
    """A sample that cannot be used.

    Args:
        reason: short and the same for all samples of a kind: skipped samples are counted by it.
        where: shard and key.
        detail: what was expected and what came.
    """

    def __init__(self, reason: str, where: str, detail: str = ""):
        super().__init__(reason, where, detail)  # all of them, or it could not travel between processes
        self.reason, self.where, self.detail = reason, where, detail

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Sample:
    """A question about an image.

    Args:
        id: `{shard name}/{key}`, unique in a stream.
        image: as `gp.pictures.to_rgb` makes it; None once it has been turned into pixel values and is not needed.
        question: as in the shard.
        answer: as in the shard.
        boxes_xyxy_px: at least one; pixels of a `width` x `height` image, inside it, with area.
        width, height: pixels, of the image that the boxes were drawn on; `image` may be a smaller copy of it.
        dataset: e.g. "gqa".
        split: e.g. "train".
        source_id: of the question in its data set, for joins; not always unique.
        image_name: name of the image in its shard.
        number: position in its split, from 0; None in training.
    """

    id: str
    image: Image.Image | None
    question: str
    answer: str
    boxes_xyxy_px: tuple[tuple[float, float, float, float], ...]
    width: int
    height: int
    dataset: str
    split: str
    source_id: str = ""
    image_name: str = ""
    number: int | None = None

    def without_image(self) -> Sample:
        """The metadata only: images are too large to be sent between processes for nothing."""
        return replace(self, image=None)


def parse_record(record: Record, number: int | None = None) -> Sample:
    """Decodes and checks one record: an image (`jpg`, `jpeg`, `png`, `webp`) and a `json` with the fields `question`,
    `answer`, `boxes_xyxy_px`, `width`, `height`, `dataset`, `split`, `source_id`.

    Boxes partly outside the image are clipped; boxes wholly outside or without area are dropped if others are left.

    Args:
        record: of a shard.
        number: its position in the split.

    Raises:
        BadSample: no image or one that does not open, wrong JSON, a field missing or of a wrong type, an image of
            another shape than width x height, no boxes, or none inside the image.
    """
    fields = _fields(record)
    width, height = checked_size(fields["width"], fields["height"], record.where)
    boxes = checked_boxes(fields["boxes_xyxy_px"], width, height, record.where)
    suffix = _image_suffix(record)
    image = _image(record, suffix)
    check_shape(image.size, width, height, record.where)
    texts = {name: fields[name] for name in TEXT_FIELDS}
    texts |= {"source_id": str(fields["source_id"]), "image_name": f"{record.name or record.key}.{suffix}"}
    return Sample(record.id, image, boxes_xyxy_px=boxes, width=width, height=height, number=number, **texts)


def claimed_size(record: Record) -> tuple[int, int] | None:
    """Width and height in pixels as the json says, without looking at the image; None if it does not say."""
    try:
        fields = _fields(record)
        return checked_size(fields["width"], fields["height"], record.where)
    except BadSample:
        return None


def check_fields(fields: Any, where: str, needed: Sequence[str] = FIELDS) -> None:
    """BadSample unless it is an object with all `needed` fields, and its texts are texts."""
    if not isinstance(fields, dict):
        raise BadSample("wrong json", where, f"expected an object, got a {type(fields).__name__}")
    if missing := [name for name in needed if fields.get(name) is None]:
        raise BadSample("missing field", where, ", ".join(missing))
    for name in TEXT_FIELDS:
        if not isinstance(fields[name], str):
            raise BadSample("wrong field", where, f"{name}: expected text, got {fields[name]!r:.200}")
    for name in ("question", "answer"):
        if not fields[name].strip():
            raise BadSample("missing field", where, f"{name} is empty")


def checked_size(width: Any, height: Any, where: str) -> tuple[int, int]:
    """Width and height as whole numbers of pixels; BadSample if they are not."""
    size = width, height
    if not all(_is_number(side) and side >= 1 and side == int(side) for side in size):
        raise BadSample("wrong field", where, f"width and height: expected whole numbers of pixels, got {size}")
    return int(width), int(height)


def checked_boxes(value: Any, width: int, height: int, where: str) -> tuple[tuple[float, float, float, float], ...]:
    """The boxes clipped to the image, those without area dropped; BadSample if none is left or they are no boxes."""
    check_box_list(value, where)
    clipped = clip_boxes(value, width, height)
    boxes = clipped[has_area(clipped)].tolist()
    if not boxes:
        raise BadSample("box outside the image", where, f"{value!r:.200} in an image of {width} x {height} px")
    return tuple(tuple(box) for box in boxes)


def check_box_list(value: Any, where: str) -> None:
    """BadSample unless it is a list of at least one [x1, y1, x2, y2] in pixels."""
    if value == []:
        raise BadSample("no boxes", where)
    if not isinstance(value, list) or not all(_is_box(box) for box in value):
        raise BadSample("wrong field", where, f"boxes_xyxy_px: expected a list of [x1, y1, x2, y2], got {value!r:.200}")
    if all(abs(side) <= 1 for box in value for side in box):  # as pixels it would be a corner of the image
        raise BadSample("boxes look like fractions of the image", where, f"expected pixels, got {value!r:.200}")


def check_shape(size: tuple[int, int], width: int, height: int, where: str) -> None:
    """BadSample unless the boxes' frame is the image's own, up to scale: another image would teach wrong evidence.

    Args:
        size: width and height of the image, pixels.
        width, height: of the boxes' frame, pixels.
        where: for the message.
    """
    scaled_height = size[0] * height / width
    if abs(size[1] - scaled_height) > 2 + 0.02 * scaled_height:
        got = f"{size[0]} x {size[1]} px"
        raise BadSample("size mismatch", where, f"boxes are for {width} x {height} px, the image has {got}")
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise BadSample("extreme aspect ratio", where, f"{size[0]} x {size[1]} px")


def _fields(record: Record) -> dict[str, Any]:
    if "json" not in record.files:
        raise BadSample("no json", record.where, f"found only {', '.join(sorted(record.files))}")
    try:
        fields = json.loads(record.files["json"])
    except (ValueError, RecursionError) as error:
        raise BadSample("wrong json", record.where, str(error)) from error
    check_fields(fields, record.where)
    return fields


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_PIXEL


def _image_suffix(record: Record) -> str:
    suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix in record.files), None)
    if suffix is None:
        found = ", ".join(sorted(record.files))
        raise BadSample("no image", record.where, f"expected one of {', '.join(IMAGE_SUFFIXES)}, found only {found}")
    return suffix


def _image(record: Record, suffix: str) -> Image.Image:
    try:
        return read_picture(record.files[suffix])
    except BadPicture as error:
        raise BadSample(error.reason, record.where, f"{suffix}, {error.detail}") from error
