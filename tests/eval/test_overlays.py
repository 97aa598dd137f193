"""Painted examples: boxes follow the image, each method is shown at its first budget."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from gp.data.painting import BOX_RGB
from gp.eval.overlays import paint_sample
from tests.support.samples import LARGE


def test_boxes_are_drawn_where_they_are_on_a_smaller_image():
    """The sample's image is a tenth of the frame that its boxes were drawn in."""
    sample = replace(LARGE, boxes_xyxy_px=((300.0, 0.0, 839.0, 250.0),))
    painted = paint_sample(sample, torch.ones(2, 3, dtype=torch.bool))
    assert painted.size == LARGE.image.size == (84, 56)
    red = [(x, y) for x in range(84) for y in range(56) if painted.getpixel((x, y)) == BOX_RGB]
    assert (min(x for x, _ in red), max(y for _, y in red)) == (30, 25)


def test_each_method_at_its_first_budget(evaluated: Path):
    rows = json.loads((evaluated / "summary.json").read_text())
    first = {row["pruner"]: row["budget"] for row in reversed(rows) if row["pruner"] != "none"}
    labels = {f"{pruner}-{'own' if budget is None else budget}" for pruner, budget in first.items()}
    pictures = sorted((evaluated / "figures").glob("test-0*.png"))
    assert {path.stem.split("-", 2)[2] for path in pictures} == labels and len(pictures) == 2 * len(labels)
    for path in pictures:
        with Image.open(path) as image:
            image.verify()
