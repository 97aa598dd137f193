"""Targets of the dense heads against the pixels of cards."""

import numpy as np

from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.growing.dense import COLOR_CLASSES, IGNORE, SHAPE_CLASSES, dense_targets


def owners(scene, rows, columns, token_px):
    """Index of the card on at least half of each token, -1 where no card is, None where it is not clear."""
    pixels = np.full((scene.image.height, scene.image.width), -1)
    for index, card in enumerate(scene.cards):
        x1, y1, x2, y2 = card.box_xyxy_px
        pixels[y1 : y2 + 1, x1 : x2 + 1] = index
    for row in range(rows):
        for column in range(columns):
            part = pixels[row * token_px : (row + 1) * token_px, column * token_px : (column + 1) * token_px]
            counts = {index: int((part == index).sum()) for index in np.unique(part) if index >= 0}
            if not counts:
                yield -1
                continue
            best = max(counts, key=counts.__getitem__)
            clear = counts[best] * 2 >= part.size and list(counts.values()).count(counts[best]) == 1
            yield best if clear else None


def check(scene, rows, columns, shrink):
    targets = dense_targets(scene.cards, rows, columns, shrink)
    seen = set()
    for token, owner in enumerate(owners(scene, rows, columns, 28 * shrink)):
        if owner is None:
            expected = [IGNORE] * 4
        elif owner == -1:
            expected = [0, 0, IGNORE, IGNORE]
        else:
            card = scene.cards[owner]
            is_readable = shrink == 1 or card.ink != "halftone"
            digits = list(card.digits) if is_readable else [IGNORE] * 2
            expected = [COLOR_CLASSES.index(card.color), SHAPE_CLASSES.index(card.shape), *digits]
            seen.add((card.ink, is_readable))
        assert targets[:, token].tolist() == expected
    return seen


def test_a_token_names_the_card_on_half_of_it():
    scene = SceneBuilder("train").build(0, "dense", 12, 16)
    assert ("halftone", True) in check(scene, 12, 16, 1)


def test_a_half_copy_asks_for_no_halftone_digits():
    scene = SceneBuilder("train").build(0, "dense", 12, 16)
    assert {("halftone", False), ("plain", True)} <= check(scene, 6, 8, 2)
