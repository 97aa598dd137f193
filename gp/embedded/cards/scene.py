"""A scene: cards with colour, shape and number over a photograph.

color        6 to 8 cards, every colour once
conjunction  6 or 8 cards, 3 or 4 colours twice each, every pair of colour and shape once
mixed        6 to 8 cards, a colour on 1 to 4 of them, every pair of colour, shape and number free
dense        as many cards as a quarter of the visual tokens may hold, for training the vision tower
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from gp.embedded.cards.background import draw_background
from gp.embedded.cards.digits import draw_number, paint_number, possible_inks
from gp.embedded.cards.layout import TOKEN_PX, Box, place_boxes
from gp.embedded.cards.looks import COLORS_RGB, SHAPES, draw_fill, paint_card
from gp.embedded.cards.material import SPLITS, load_material

LAYOUTS = ("color", "conjunction", "mixed", "dense")
NUM_CARDS = (6, 8)
HALFTONE_SHARE = 0.5
SEED_STREAM = 20261128  # no seed of a scene is one of another generation's


@dataclass(frozen=True)
class Card:
    """One card. `box_xyxy_px` ints, last pixel inclusive; `scan_ids` index the 1,797 scans (left, right)."""

    box_xyxy_px: Box
    color: str
    shape: str
    digits: tuple[int, int]
    scan_ids: tuple[int, int]
    ink: str

    @property
    def number(self) -> str:
        """Its number as an answer: "4 7"."""
        return f"{self.digits[0]} {self.digits[1]}"


@dataclass(frozen=True)
class Scene:
    """`image`: RGB, rows x columns visual tokens of 28 px. No two cards of a scene with questions show one number."""

    image: Image.Image
    cards: tuple[Card, ...]
    layout: str
    rows: int
    columns: int
    source_id: str


class SceneBuilder:
    """Builds scenes of one split.

    Args:
        split: "train", "val" or "test".
        augment: distort digit scans, tint backgrounds; for training.
    """

    def __init__(self, split: str, augment: bool = False):
        self.split = split
        self.augment = augment
        self.material = load_material(split)

    def build(self, seed: int, layout: str, rows: int, columns: int, halftone: float = HALFTONE_SHARE,
              large: float = 0.0) -> Scene:  # fmt: skip
        """Builds the scene of this seed.

        Args:
            seed: >= 0.
            layout: of LAYOUTS.
            rows, columns: visual tokens, at least 8 and 8.
            halftone: share of halftone numbers among cards that have the room.
            large: share of cards that are made large and have large ink, for training; 0: as chance has it.

        Raises:
            ValueError: `layout` is not one of LAYOUTS, or the scene is too small for its cards.
        """
        if layout not in LAYOUTS or rows * columns < 64 or min(rows, columns) < 4:
            raise ValueError(
                f"expected a layout of {LAYOUTS} and 64 tokens or more, got {layout!r}, {rows} x {columns}"
            )
        rng = np.random.default_rng(
            [SEED_STREAM, seed, LAYOUTS.index(layout), SPLITS.index(self.split), int(self.augment), rows, columns]
        )
        photo, pixels = draw_background(self.material, columns * TOKEN_PX, rows * TOKEN_PX, rng, self.augment)
        looks = _draw_looks(rng, layout, rows * columns)
        boxes = place_boxes(rng, rows, columns, len(looks), large)
        while len(boxes) < len(looks) and layout != "dense":  # as good as never
            boxes = place_boxes(rng, rows, columns, len(looks), large)
        picks = self._draw_picks(rng, len(boxes), is_unique=layout != "dense")
        cards = [
            self._paint(pixels, rng, box, look, pick, halftone, large > 0)
            for box, look, pick in zip(boxes, looks, picks, strict=False)
        ]
        pixels += 0.5
        image = Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))
        source_id = f"{self.split}/{layout}/{rows}x{columns}/{seed}/{photo}"
        return Scene(image, tuple(cards), layout, rows, columns, source_id)

    def _draw_picks(self, rng: np.random.Generator, num_cards: int, is_unique: bool) -> list[np.ndarray]:
        """Two scans for each card; no number twice if `is_unique`."""
        picks: list[np.ndarray] = []
        seen: set[tuple[int, ...]] = set()
        while len(picks) < num_cards:
            pick = rng.integers(len(self.material.labels), size=2)
            number = tuple(self.material.labels[pick].tolist())
            if not is_unique or number not in seen:
                seen.add(number)
                picks.append(pick)
        return picks

    def _paint(self, pixels: np.ndarray, rng, box: Box, look: tuple[str, str], picks, halftone: float,
               prefers_large: bool) -> Card:  # fmt: skip
        """Paints one card into `pixels` in place."""
        x1, y1, x2, y2 = box
        region = pixels[y1 : y2 + 1, x1 : x2 + 1]
        height, width, _ = region.shape
        color, shape = look
        fill = draw_fill(color, rng)
        inside = paint_card(region, shape, fill)
        ink = _draw_ink(rng, width, height, halftone, prefers_large)
        number = draw_number(self.material, picks, ink, width, height, rng, self.augment)
        paint_number(region, inside, fill, (x1, y1), ink, number)
        digits, scan_ids = (_pair(values[picks]) for values in (self.material.labels, self.material.scan_ids))
        return Card(box, color, shape, digits, scan_ids, ink)


def _draw_ink(rng: np.random.Generator, width: int, height: int, halftone: float, prefers_large: bool) -> str:
    inks = possible_inks(width, height)
    if prefers_large and "large" in inks:
        return "large"
    if "halftone" in inks and rng.random() < halftone:
        return "halftone"
    black = [ink for ink in inks if ink != "halftone"]
    return black[int(rng.integers(len(black)))]


def _draw_looks(rng: np.random.Generator, layout: str, num_tokens: int) -> list[tuple[str, str]]:
    """(color, shape) of each card of a scene, in the order of the cards."""
    colors = list(COLORS_RGB)
    if layout == "dense":
        count = max(8, num_tokens * 3 // 16)
        return [(_pick(rng, colors), _pick(rng, SHAPES)) for _ in range(count)]
    count = int(rng.integers(NUM_CARDS[0], NUM_CARDS[1] + 1))
    chosen = [colors[i] for i in rng.permutation(len(colors))]
    if layout == "color":
        return [(color, _pick(rng, SHAPES)) for color in chosen[:count]]
    if layout == "conjunction":
        looks = [(c, SHAPES[s]) for c in chosen[: count // 2] for s in rng.permutation(len(SHAPES))[:2]]
        return [looks[i] for i in rng.permutation(len(looks))]
    looks = []
    while len(looks) < count:
        color, repeats = chosen.pop(), int(rng.integers(1, 5))
        looks += [(color, _pick(rng, SHAPES)) for _ in range(min(repeats, count - len(looks)))]
    return [looks[i] for i in rng.permutation(count)]


def _pick(rng: np.random.Generator, options) -> str:
    return options[int(rng.integers(len(options)))]


def _pair(values: np.ndarray) -> tuple[int, int]:
    left, right = values.tolist()
    return left, right
