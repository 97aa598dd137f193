"""Scenes of the embedded data: numbered cards over a photograph, with grounded questions.

A scene is a 224 x 224 photograph crop with cards of 56 x 28 px on it. Each card has a colour, a shape and two real
handwritten digits. Three kinds:

    color        6 cards of unique colours; "what number is on the red card ?"
    conjunction  6 cards, 3 colours twice each, unique pairs of colour and shape; "... on the red oval ?".
                 The asked card shares its colour with one card and its shape with another at least, so neither
                 finds it alone.
    dense        up to 14 cards of any colour and shape, no questions; for pretraining the vision tower.

Everything is a pure function of (split, kind, seed). Splits share no digit scan, no photograph and no seed stream.
"""

import math
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw

from gp.embedded.cards.looks import COLORS_RGB, SHAPES
from gp.embedded.cards.material import SPLITS, load_material

KINDS = ("color", "conjunction", "dense")
IMAGE_SIZE_PX = 224
CARD_WIDTH_PX = 56
CARD_HEIGHT_PX = 28
GRID_PX = 14
DIGIT_CELL_PX = 28
MIN_DIGIT_PX = 24
TEMPLATES = (
    "what number is on the {color} {noun} ?",
    "read the number on the {color} {noun} .",
    "which two digits are on the {color} {noun} ?",
    "the {color} {noun} shows which number ?",
)
INK_RGB = np.array([18, 18, 22], dtype=np.float32)
MAX_CARDS = {"color": 6, "conjunction": 6, "dense": 14}


@dataclass(frozen=True)
class Card:
    """One card. `box_xyxy_px` ints, last pixel inclusive; `scan_ids` index the 1,797 scans (left, right)."""

    box_xyxy_px: tuple[int, int, int, int]
    color: str
    shape: str
    digits: tuple[int, int]
    scan_ids: tuple[int, int]


@dataclass(frozen=True)
class Question:
    """A question with its answer ("4 7") and evidence boxes (ints, pixels, last pixel inclusive)."""

    text: str
    answer: str
    boxes_xyxy_px: tuple[tuple[int, int, int, int], ...]
    kind: str


@dataclass(frozen=True)
class Scene:
    """`image`: RGB, 224 x 224 px. `questions`: one for each card that can be asked for, in random order."""

    image: Image.Image
    cards: tuple[Card, ...]
    questions: tuple[Question, ...]
    source_id: str


class SceneBuilder:
    """Builds scenes of one split.

    Args:
        split: "train", "val" or "test".
        augment: distort the digit scans (rotation, size, stroke weight, ink strength); for pretraining.
    """

    def __init__(self, split: str, augment: bool = False):
        self.split = split
        self.augment = augment
        self.material = load_material(split)

    def build(self, seed: int, kind: str) -> Scene:
        """Build the scene of this seed (>= 0).

        Raises:
            ValueError: `kind` is not one of KINDS.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
        rng = np.random.default_rng([seed, KINDS.index(kind), SPLITS.index(self.split), int(self.augment)])
        photo_id, pixels = self._background(rng)
        cards = []
        for box, (color, shape) in zip(_place_boxes(rng, MAX_CARDS[kind]), _draw_looks(rng, kind), strict=False):
            picks = rng.integers(len(self.material.labels), size=2)
            self._paint_card(pixels, box, color, shape, picks, rng)
            digits, scan_ids = (_pair(of_scan[picks]) for of_scan in (self.material.labels, self.material.scan_ids))
            cards.append(Card(box, color, shape, digits, scan_ids))
        image = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
        source_id = f"{self.split}/{kind}/{seed}/{self.material.photo_names[photo_id]}"
        return Scene(image, tuple(cards), tuple(_ask(rng, cards, kind)), source_id)

    def _background(self, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """A random square crop of a random photograph: its index and float32 [224, 224, 3] in 0..255."""
        photo_id = int(rng.integers(len(self.material.photos)))
        photo = self.material.photos[photo_id]
        side = float(rng.uniform(0.5, 1.0)) * min(photo.size)
        left = float(rng.uniform(0, photo.width - side))
        top = float(rng.uniform(0, photo.height - side))
        size = (IMAGE_SIZE_PX, IMAGE_SIZE_PX)
        crop = photo.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        pixels = np.asarray(crop, dtype=np.float32)
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        gain = rng.uniform(0.75, 1.15, size=1)
        if self.augment:
            # Ten photographs are few: permuted and tinted channels keep the tower from leaning on their colours.
            pixels = pixels[..., rng.permutation(3)]
            gain = gain * rng.uniform(0.7, 1.2, size=3)
        return photo_id, pixels * gain.astype(np.float32)

    def _paint_card(self, pixels, box, color, shape, picks, rng) -> None:
        """Blend one card and its two digits into `pixels` in place."""
        x1, y1, x2, y2 = box
        region = pixels[y1 : y2 + 1, x1 : x2 + 1]
        fill = np.array(COLORS_RGB[color], dtype=np.float32) + rng.uniform(-10, 10, size=3).astype(np.float32)
        # A thin dark outline keeps a red card visible on a red photograph.
        region += (INK_RGB - region) * _shape_mask(shape, inset_px=0)[..., None]
        region += (fill - region) * _shape_mask(shape, inset_px=1)[..., None]
        ink = np.zeros((CARD_HEIGHT_PX, CARD_WIDTH_PX), dtype=np.float32)
        for side, pick in enumerate(picks):
            ink[:, side * DIGIT_CELL_PX : (side + 1) * DIGIT_CELL_PX] = self._draw_digit(int(pick), rng)
        region += (INK_RGB - region) * ink[..., None]

    def _draw_digit(self, pick: int, rng: np.random.Generator) -> np.ndarray:
        """Ink of one digit, float32 [28, 28] in 0..1; glyph 24 to 28 px high at a random offset in its cell."""
        size = int(rng.integers(MIN_DIGIT_PX, DIGIT_CELL_PX + 1))
        left, top = (int(v) for v in rng.integers(0, DIGIT_CELL_PX - size + 1, size=2))
        if self.augment:
            return self._distort_digit(pick, size, left, top, rng)
        cell = np.zeros((DIGIT_CELL_PX, DIGIT_CELL_PX), dtype=np.float32)
        cell[top : top + size, left : left + size] = _resized_scan(self.split, pick, size)
        return cell

    def _distort_digit(self, pick, size, left, top, rng) -> np.ndarray:
        angle, shear = rng.uniform(-0.16, 0.16), rng.uniform(-0.12, 0.12)
        scale_x, scale_y = rng.uniform(0.88, 1.06, size=2) * size / DIGIT_CELL_PX
        # PIL maps output to input, so this is the inverse map about the centre of the cell.
        cos, sin = math.cos(angle), math.sin(angle)
        a, b = cos / scale_x, (sin + shear) / scale_x
        d, e = -sin / scale_y, cos / scale_y
        middle = DIGIT_CELL_PX / 2
        center_x, center_y = left + size / 2 + rng.uniform(-0.7, 0.7), top + size / 2 + rng.uniform(-0.7, 0.7)
        matrix = (a, b, middle - a * center_x - b * center_y, d, e, middle - d * center_x - e * center_y)
        source = _scan_image(self.split, pick)
        warped = source.transform(source.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        # The exponent makes strokes bolder or thinner, the factor the ink paler.
        ink = np.clip(np.asarray(warped), 0.0, 1.0) ** np.float32(rng.uniform(0.7, 1.4))
        return ink * np.float32(rng.uniform(0.75, 1.0))


@lru_cache(maxsize=20_000)
def _resized_scan(split: str, pick: int, size: int) -> np.ndarray:
    scan = Image.fromarray(load_material(split).scans[pick])
    return np.clip(np.asarray(scan.resize((size, size), Image.Resampling.BICUBIC)), 0.0, 1.0)


@lru_cache(maxsize=2_000)
def _scan_image(split: str, pick: int) -> Image.Image:
    return Image.fromarray(_resized_scan(split, pick, DIGIT_CELL_PX))


@cache
def _shape_mask(shape: str, inset_px: int) -> np.ndarray:
    """Coverage of a card's silhouette, shrunk by `inset_px` on each side, float32 [28, 56] in 0..1."""
    factor = 8  # drawn larger, then averaged: smooth edges
    width, height, inset = CARD_WIDTH_PX * factor, CARD_HEIGHT_PX * factor, inset_px * factor
    left, top, right, bottom = inset, inset, width - 1 - inset, height - 1 - inset
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    if shape == "rectangle":
        draw.rectangle((left, top, right, bottom), fill=255)
    elif shape == "oval":
        draw.rounded_rectangle((left, top, right, bottom), radius=height // 2 - inset, fill=255)
    else:
        tip, middle = 10 * factor, height // 2
        points = [(left, middle), (left + tip, top), (right - tip, top)]
        points += [(right, middle), (right - tip, bottom), (left + tip, bottom)]
        draw.polygon(points, fill=255)
    small = canvas.resize((CARD_WIDTH_PX, CARD_HEIGHT_PX), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255.0


def _pair(values: np.ndarray) -> tuple[int, int]:
    left, right = values.tolist()
    return left, right


def _place_boxes(rng: np.random.Generator, num_cards: int) -> list[tuple[int, int, int, int]]:
    """Up to `num_cards` boxes on the grid that do not overlap, by rejection; 6 always fit in practice."""
    columns = (IMAGE_SIZE_PX - CARD_WIDTH_PX) // GRID_PX + 1
    rows = (IMAGE_SIZE_PX - CARD_HEIGHT_PX) // GRID_PX + 1
    corners: list[tuple[int, int]] = []
    for column, row in zip(rng.integers(columns, size=200), rng.integers(rows, size=200), strict=True):
        x, y = int(column) * GRID_PX, int(row) * GRID_PX
        if all(abs(x - u) >= CARD_WIDTH_PX or abs(y - v) >= CARD_HEIGHT_PX for u, v in corners):
            corners.append((x, y))
            if len(corners) == num_cards:
                break
    return [(x, y, x + CARD_WIDTH_PX - 1, y + CARD_HEIGHT_PX - 1) for x, y in corners]


def _draw_looks(rng: np.random.Generator, kind: str) -> list[tuple[str, str]]:
    """(color, shape) of each card of a scene of this kind, in the order of the cards."""
    colors = list(COLORS_RGB)
    if kind == "color":
        chosen = rng.permutation(len(colors))[: MAX_CARDS[kind]]
        return [(colors[i], SHAPES[int(rng.integers(len(SHAPES)))]) for i in chosen]
    if kind == "conjunction":
        looks = [
            (colors[color], SHAPES[shape])
            for color in rng.permutation(len(colors))[:3]
            for shape in rng.permutation(len(SHAPES))[:2]
        ]
        return [looks[i] for i in rng.permutation(len(looks))]
    return [
        (colors[int(rng.integers(len(colors)))], SHAPES[int(rng.integers(len(SHAPES)))]) for _ in range(MAX_CARDS[kind])
    ]


def _ask(rng: np.random.Generator, cards: list[Card], kind: str) -> list[Question]:
    """One question for each card that this kind may ask for, in random order with random wordings."""
    if kind == "dense":
        return []
    shapes = [card.shape for card in cards]
    askable = [c for c in cards if kind == "color" or shapes.count(c.shape) > 1]
    questions = []
    for i in rng.permutation(len(askable)):
        card = askable[i]
        template = TEMPLATES[int(rng.integers(len(TEMPLATES)))]
        text = template.format(color=card.color, noun="card" if kind == "color" else card.shape)
        questions.append(Question(text, f"{card.digits[0]} {card.digits[1]}", (card.box_xyxy_px,), kind))
    return questions
