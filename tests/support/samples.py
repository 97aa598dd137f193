"""Two samples as a shard would give them."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from gp.data.sample import Sample

SMALL = Sample(
    id="s0/0000",
    image=Image.new("RGB", (56, 28), (255, 0, 0)),
    question="what is here ?",
    answer="red",
    boxes_xyxy_px=((0.0, 0.0, 27.0, 27.0),),
    width=56,
    height=28,
    dataset="small",
    split="train",
)
LARGE = replace(
    SMALL, id="s0/0001", image=Image.new("RGB", (84, 56)), question="what ?", answer="1 2 3", width=840, height=560,
    boxes_xyxy_px=((300.0, 0.0, 839.0, 250.0),)
)  # fmt: skip
