"""One question as it will lie in a shard: checked as far as can be without its image, then against the image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gp.data.building.keys import image_key
from gp.data.sample import (
    TEXT_FIELDS,
    BadSample,
    check_box_list,
    check_fields,
    check_shape,
    checked_boxes,
    checked_size,
)

# A box of the benchmark's conversations, in the frame of the image padded to a square; dropped once compared.
PADDED = "boxes_xyxy_norm_padded"
PADDED_TOLERANCE = 0.02
LLAVA_MARKER = "<image>"
# what stands for images and videos in prompts of LLaVA and of the Qwen families
MARKERS = (LLAVA_MARKER, "<video>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")


@dataclass(frozen=True, slots=True)
class Row:
    """A question.

    Args:
        image: key of its image, see `image_key`.
        json: UTF-8, an object in the shards' schema; width and height are null where the annotation does not say.
        mended: what was put right in it; empty: nothing.
    """

    image: str
    json: bytes
    mended: str = ""


def checked_row(image: Any, fields: Any, where: str) -> Row:
    """Checks a question without its image; boxes are clipped if width and height are known.

    Raises:
        BadSample: an unsafe or missing image path, a field missing or of a wrong type, or no box inside the image.
    """
    check_fields(fields, where, (*TEXT_FIELDS, "boxes_xyxy_px", "source_id"))
    if not isinstance(image, str) or not image:
        raise BadSample("missing field", where, f"image: expected a path, got {image!r:.200}")
    key = image_key(image)
    if key is None:
        raise BadSample("unsafe image path", where, f"expected a path inside the image folder, got {image!r:.200}")
    check_box_list(fields["boxes_xyxy_px"], where)
    fields, mended = without_marker(fields, where)
    if fields.get("width") is None or fields.get("height") is None:
        fields = {**fields, "width": None, "height": None}
    else:
        fields = _sized(fields, fields["width"], fields["height"], where)
    return Row(key, _dumps(fields), mended)


def without_marker(fields: dict[str, Any], where: str) -> tuple[dict[str, Any], str]:
    """Takes away LLaVA's marker of the image before or behind a question, and says so.

    Raises:
        BadSample: a text that still holds what some family puts in the place of an image: no processor could tell it
            from the image itself.
    """
    question = fields["question"].strip().removeprefix(LLAVA_MARKER).removesuffix(LLAVA_MARKER).strip()
    mended = "image marker removed from the question" if LLAVA_MARKER in fields["question"] else ""
    fields = {**fields, "question": question} if mended else fields
    for name in ("question", "answer"):
        if marker := next((marker for marker in MARKERS if marker in fields[name]), None):
            raise BadSample("image marker in a text", where, f"{name}: {fields[name]!r:.200} holds {marker!r}")
    if not question:
        raise BadSample("missing field", where, "question is empty but for the image marker")
    return fields, mended


def fitted_row(row: bytes, size: tuple[int, int], where: str) -> bytes:
    """The final JSON of a question, now that its image is known.

    Args:
        row: `Row.json`.
        size: width and height of the image as published, pixels.
        where: names the image in messages.

    Raises:
        BadSample: an image of another shape than the annotation's, or no box inside it.
    """
    fields = json.loads(row)
    where = f"{fields['source_id']}, image {where}"
    if fields["width"] is not None:
        check_shape(size, fields["width"], fields["height"], where)
        return row
    check_shape(size, *size, where)
    padded = fields.pop(PADDED, None)
    if padded is not None:
        _compare_with_padded(fields["boxes_xyxy_px"], padded, size, where)
    return _dumps(_sized(fields, *size, where))


def _sized(fields: dict[str, Any], width: Any, height: Any, where: str) -> dict[str, Any]:
    width, height = checked_size(width, height, where)
    boxes = fields["boxes_xyxy_px"]
    if not all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for x1, y1, x2, y2 in boxes):
        boxes = [list(box) for box in checked_boxes(boxes, width, height, where)]
    return {**fields, "boxes_xyxy_px": boxes, "width": width, "height": height}


def _compare_with_padded(boxes: list, padded: list, size: tuple[int, int], where: str) -> None:
    """Both boxes of a benchmark entry must be the same one: if not, the image is not the one that was annotated."""
    side = max(size)
    left, top = (side - size[0]) / 2, (side - size[1]) / 2
    x1, y1, x2, y2 = boxes[0]
    expected = ((x1 + left) / side, (y1 + top) / side, (x2 + left) / side, (y2 + top) / side)
    if max(abs(a - b) for a, b in zip(expected, padded)) > PADDED_TOLERANCE:
        detail = f"pixels {boxes[0]} in {size[0]} x {size[1]} px against {padded} of the padded square"
        raise BadSample("the two boxes disagree", where, detail)


def _dumps(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")
