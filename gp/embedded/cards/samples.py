"""A sample: the images of a prompt, a question about them, its answer and the evidence in each image.

Kinds are those of `gp.embedded.cards.questions`, and two that show one scene twice:

    zoom    a half-size copy, then a crop of the full-size scene that holds the card that is asked for
    glance  the half-size copy alone; a halftone number cannot be read in it

Scenes are seen as a JPEG file of quality 95 keeps them.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from gp.embedded.cards.layout import Box
from gp.embedded.cards.questions import (
    KINDS,
    LAYOUTS_OF_KIND,
    PLACES,
    Question,
    ask,
    ask_in_picture,
    ask_to_read,
    readable,
)
from gp.embedded.cards.scene import Scene, SceneBuilder
from gp.embedded.cards.views import crop, crop_box, draw_crop, half_box, half_copy, through_jpeg

ZOOM_KINDS = ("zoom", "glance")
SAMPLE_KINDS = (*KINDS, *ZOOM_KINDS)
CROPS = ((3, 4), (4, 4), (3, 5), (4, 5), (3, 6), (4, 6))
"""Sizes of crops in visual tokens; the last holds every card at every place."""


@dataclass(frozen=True)
class Sample:
    """images: RGB. boxes_xyxy_px: evidence in every image. source_id: of its scenes."""

    images: tuple[Image.Image, ...]
    question: Question
    boxes_xyxy_px: tuple[tuple[Box, ...], ...]
    source_id: str


def draw_sample(builder: SceneBuilder, kind: str, rows: int, columns: int, seed: int) -> Sample:
    """The sample of a kind, a size and a seed.

    Args:
        builder: of a split.
        kind: of SAMPLE_KINDS.
        rows, columns: of a scene in visual tokens; even for zoom and glance.
        seed: >= 0; samples of one seed and different kinds may show one scene.

    Raises:
        ValueError: `kind` is unknown, or the size is odd where it must not be.
    """
    if kind not in SAMPLE_KINDS:
        raise ValueError(f"kind must be one of {SAMPLE_KINDS}, got {kind!r}")
    rng = _generator(kind, seed)
    if kind in ZOOM_KINDS:
        return _draw_zoom(builder, kind, rows, columns, seed, rng)
    if kind not in PLACES:
        scene, question = draw_question(builder, kind, rows, columns, seed)
        return Sample((through_jpeg(scene.image),), question, (_boxes(question),), scene.source_id)
    scene = builder.build(seed, LAYOUTS_OF_KIND[kind], rows, columns)
    scenes = (scene, builder.build(seed + 2**40, "color", rows, columns))
    question = ask_in_picture(rng, scenes, PLACES.index(kind))
    boxes = tuple(_boxes(question) if index == question.picture else () for index in range(2))
    return Sample(tuple(through_jpeg(s.image) for s in scenes), question, boxes, "+".join(s.source_id for s in scenes))


def draw_question(builder: SceneBuilder, kind: str, rows: int, columns: int, seed: int) -> tuple[Scene, Question]:
    """The scene and question of `draw_sample`, as drawn, for a kind about one picture that is asked as it is."""
    scene = builder.build(seed, LAYOUTS_OF_KIND[kind], rows, columns)
    return scene, ask(_generator(kind, seed), scene, kind)


def _generator(kind: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, SAMPLE_KINDS.index(kind)])


def _draw_zoom(builder: SceneBuilder, kind: str, rows: int, columns: int, seed: int, rng) -> Sample:
    if rows % 2 or columns % 2:
        raise ValueError(f"a half-size copy needs even numbers of visual tokens, got {rows} x {columns}")
    scene = builder.build(seed, "color", rows, columns)
    card = readable(scene)[int(rng.integers(len(readable(scene))))]
    question = ask_to_read(rng, card, scene)
    image = through_jpeg(scene.image)
    glance = half_copy(image)
    boxes = tuple(half_box(box) for box in _boxes(question))
    if kind == "glance":
        return Sample((glance,), question, (boxes,), scene.source_id)
    size = CROPS[int(rng.integers(len(CROPS)))]
    place = draw_crop(rng, image, card.box_xyxy_px, *size)
    if place is None:
        size = CROPS[-1]
        place = draw_crop(rng, image, card.box_xyxy_px, *size)
    assert place is not None  # the last size holds every card
    look = crop(image, place, *size)
    return Sample((glance, look), question, (boxes, (crop_box(card.box_xyxy_px, place),)), scene.source_id)


def _boxes(question: Question) -> tuple[Box, ...]:
    return tuple(card.box_xyxy_px for card in question.evidence)
