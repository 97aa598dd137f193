"""Shards of the twelve Visual-CoT sets in small: real annotations, drawn images, three questions a set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.small_shards import write_tar
from tests.support.viscot_files import HERE, drawn, implied_size, training_rows

# the order of the original's script
SETS = (
    *("cub", "docvqa", "dude", "flickr30k", "gqa", "infographicsvqa"),
    *("openimages", "sroie", "textcap", "textvqa", "visual7w", "vsr"),
)
TRAINING = ("cub", "sroie", "vsr")
BENCHMARK = ("gqa", "textcap", "visual7w", "dude")
# sets without an excerpt have another set's rows
STAND_IN = {
    "docvqa": "dude", "flickr30k": "visual7w", "infographicsvqa": "dude", "openimages": "gqa", "textvqa": "textcap",
}  # fmt: skip
LONGER_PX = 84
PER_SET = 3


def write_sets(folder: Path, answers: Mapping[str, Sequence[str]] = {}) -> None:
    """Writes `bench-SET-000000.tar` for every set; `answers` of a set take the place of its first questions' own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        files = {}
        for number, row in enumerate(_rows(STAND_IN.get(name, name))[:PER_SET]):
            scale = LONGER_PX / max(row["width"], row["height"])
            size = max(28, round(row["width"] * scale)), max(28, round(row["height"] * scale))
            row |= {"dataset": name, "split": "val", "source_id": str(number)}
            if number < len(answers.get(name, ())):
                row["answer"] = answers[name][number]
            files[f"{number:06d}.jpg"] = drawn(*size, f"{name}{number}")
            files[f"{number:06d}.json"] = json.dumps(row).encode()
        write_tar(folder / f"bench-{name}-000000.tar", files)


def _rows(name: str) -> list[dict]:
    if name in TRAINING:
        found = [(r["question"], r["answer"], r["bboxs"], (r["width"], r["height"])) for r in training_rows(name)]
    else:
        entries = json.loads((HERE / f"benchmark_{name}.head.json").read_text())
        found = [_of_entry(entry) for entry in entries]
    return [
        {"question": question, "answer": answer, "boxes_xyxy_px": boxes, "width": size[0], "height": size[1]}
        for question, answer, boxes, size in found
        if boxes[0][0] < size[0] and boxes[0][1] < size[1] and max(size) < 3 * min(size)
    ]


def _of_entry(entry: dict) -> tuple:
    turns = [turn["value"] for turn in entry["conversations"]]
    question = turns[0].removeprefix("<image>\n").partition(" Please provide the bounding box")[0]
    return question, turns[3], [json.loads(entry["image"][1].split("###")[1])], implied_size(entry)
