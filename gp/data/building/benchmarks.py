"""Entries of the Visual-CoT benchmark and of V* -> image path and fields of the shards' schema."""

from __future__ import annotations

import json
import re
from math import isfinite
from pathlib import Path
from typing import Any

from gp.data.building.keys import image_key
from gp.data.building.rows import LLAVA_MARKER, PADDED
from gp.data.sample import BadSample

VSTAR_QUESTIONS = "test_questions.jsonl"
REQUEST = re.compile(r"\s*Please provide the bounding box coordinate.*", re.DOTALL)


def benchmark_row(entry: Any, where: str) -> tuple[str, dict[str, Any]]:
    """An entry of `viscot_benchmark/benchmark/*.json`.

    The box is the one behind `###`, in pixels. The one in the conversation is relative to the image padded to a
    square; it comes along to be compared once the image's size is known.
    """
    try:
        image, box = entry["image"][-1].split("###")
        turns = [turn["value"] for turn in entry["conversations"]]
        fields = {
            "question": question_alone(turns[0]),
            "answer": turns[3],
            "boxes_xyxy_px": [json.loads(box)],
            "dataset": entry["dataset"],
            "split": entry["split"],
            "source_id": str(entry["question_id"]),
            PADDED: _four_numbers(json.loads(turns[1])),
        }
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise BadSample("not an entry of the Visual-CoT benchmark", where, detail) from error
    return image, fields


def question_alone(text: str) -> str:
    """Strips the image marker and the request for a box at the end: what is left is what a user would ask."""
    return REQUEST.sub("", text.replace(LLAVA_MARKER, "")).strip()


def vstar_row(line: bytes, where: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """A line of V*'s question file; the boxes come from the JSON beside the image, as [x, y, width, height] in pixels.

    Source: github.com/penghao-wu/vstar, visual_search.py (the form of the boxes), and the files of craigwu/vstar_bench.
    """
    try:
        given = json.loads(line)
        image = given["image"]
        key = image_key(image)
        if key is None:
            raise BadSample("unsafe image path", where, f"{image!r:.200}")
        boxes = json.loads((folder / image).with_suffix(".json").read_bytes())["bbox"]
        fields = {
            "question": question_alone(given["text"]),
            "answer": given["label"],
            "boxes_xyxy_px": [[x, y, x + width, y + height] for x, y, width, height in boxes],
            "dataset": "vstar",
            "split": "test",
            "source_id": f"{given['category']}/{given['question_id']}",
        }
    except BadSample:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OSError, OverflowError, RecursionError) as error:
        raise BadSample("not a question of V*", where, f"{type(error).__name__}: {error}") from error
    return image, fields


def _four_numbers(value: Any) -> list[float]:
    """ValueError unless it is a box: the cross-check must not fail later, in another process, nor pass by a NaN."""
    if not isinstance(value, list) or len(value) != 4 or not all(isfinite(number) for number in value):
        raise ValueError(f"expected a box of four numbers, got {value!r:.100}")
    return [float(number) for number in value]
