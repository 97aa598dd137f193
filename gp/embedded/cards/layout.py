"""Where cards lie: boxes on a grid of 14 px that do not overlap."""

import numpy as np

GRID_PX = 14
TOKEN_PX = 28
WIDTHS_PX = (56, 70, 84, 98, 112)
HEIGHTS_PX = (28, 42, 56)
SMALL_SCENE = 144  # visual tokens; below it cards are small, so that all of them fit
SMALL_WIDTHS_PX = (56, 70, 84)
SMALL_HEIGHT_PX = 28
LARGE_WIDTHS_PX, LARGE_HEIGHTS_PX = (84, 98, 112), (42, 56)  # with room for large ink
TRIES = 40

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels, the last one inclusive."""


def place_boxes(rng: np.random.Generator, rows: int, columns: int, num_cards: int, large: float = 0.0) -> list[Box]:
    """Up to `num_cards` boxes in an image of `rows` x `columns` visual tokens, by rejection.

    A box that finds no room is left out: 12 cards always fit into 8 x 8 tokens in practice. A share `large` of them
    have room for large ink, in small scenes too.
    """
    per_token = TOKEN_PX // GRID_PX
    is_taken = np.zeros((rows * per_token, columns * per_token), dtype=bool)
    boxes = []
    for _ in range(num_cards):
        width, height = _draw_size(rng, rows * columns, large)
        box = _find_room(rng, is_taken, width, height) or _find_room(rng, is_taken, WIDTHS_PX[0], HEIGHTS_PX[0])
        if box is not None:
            boxes.append(box)
    return boxes


def _draw_size(rng: np.random.Generator, num_tokens: int, large: float) -> tuple[int, int]:
    """Width and height in pixels; wide ones are as likely as narrow ones, high ones rarer than flat ones."""
    if large and rng.random() < large:
        return int(rng.choice(LARGE_WIDTHS_PX)), int(rng.choice(LARGE_HEIGHTS_PX))
    if num_tokens < SMALL_SCENE:
        return int(rng.choice(SMALL_WIDTHS_PX)), SMALL_HEIGHT_PX
    return int(rng.choice(WIDTHS_PX)), int(rng.choice(HEIGHTS_PX, p=(0.5, 0.3, 0.2)))


def _find_room(rng: np.random.Generator, is_taken: np.ndarray, width: int, height: int) -> Box | None:
    """A free place for a card of this size in pixels, which is taken then; None after TRIES misses."""
    wide, high = width // GRID_PX, height // GRID_PX
    last_row, last_column = is_taken.shape[0] - high, is_taken.shape[1] - wide
    if min(last_row, last_column) < 0:
        return None
    for row, column in zip(rng.integers(last_row + 1, size=TRIES), rng.integers(last_column + 1, size=TRIES)):
        place = is_taken[row : row + high, column : column + wide]
        if not place.any():
            place[:] = True
            x, y = int(column) * GRID_PX, int(row) * GRID_PX
            return x, y, x + width - 1, y + height - 1
    return None


def box_coverage(box: Box, rows: int, columns: int, token_px: float = TOKEN_PX) -> np.ndarray:
    """Share of each visual token's area inside the box, float64 [rows, columns].

    Args:
        token_px: pixels of the box's image a token covers on each side; 56 for the half-size copy.
    """
    x1, y1, x2, y2 = box
    across, down = np.arange(columns) * token_px, np.arange(rows) * token_px
    width = np.clip(np.minimum(across + token_px, x2 + 1) - np.maximum(across, x1), 0, None)
    height = np.clip(np.minimum(down + token_px, y2 + 1) - np.maximum(down, y1), 0, None)
    return np.outer(height, width) / token_px**2
