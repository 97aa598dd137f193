"""Scenes of cards: a pure function of their seed, at any size, with halftone numbers that half a size does not show."""

import numpy as np
import pytest
from PIL import Image

from gp.embedded.cards.digits import GROUND, possible_inks
from gp.embedded.cards.layout import GRID_PX, box_coverage
from gp.embedded.cards.looks import COLORS_RGB
from gp.embedded.cards.material import SPLITS, load_material
from gp.embedded.cards.scene import LAYOUTS, SceneBuilder
from gp.embedded.cards.views import crop, half_copy, through_jpeg

SIZES = [(8, 8), (8, 16), (12, 16), (16, 16), (14, 18), (20, 13), (20, 20)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_seed_gives_one_scene(layout):
    first, again = (SceneBuilder("train", augment=True).build(5, layout, 9, 12) for _ in range(2))
    other = SceneBuilder("train", augment=True).build(6, layout, 9, 12)
    assert first.cards == again.cards and np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_holds_its_cards(size):
    rows, columns = size
    for seed in range(4):
        scene = SceneBuilder("val").build(seed, "color", rows, columns)
        assert scene.image.size == (28 * columns, 28 * rows)
        assert 6 <= len(scene.cards) <= 8
        covered = np.zeros((28 * rows, 28 * columns), dtype=int)
        for card in scene.cards:
            x1, y1, x2, y2 = card.box_xyxy_px
            assert 0 <= x1 < x2 < 28 * columns and 0 <= y1 < y2 < 28 * rows
            assert x1 % GRID_PX == y1 % GRID_PX == 0
            assert 56 <= x2 - x1 + 1 <= 112 and 28 <= y2 - y1 + 1 <= 56
            covered[y1 : y2 + 1, x1 : x2 + 1] += 1
        assert covered.max() == 1  # no two overlap


def test_large_cards_for_training_come_into_small_scenes():
    cards = [card for seed in range(8) for card in SceneBuilder("val").build(seed, "color", 8, 8, large=0.6).cards]
    assert sum(card.ink == "large" for card in cards) > len(cards) / 3
    for card in cards:
        x1, y1, x2, y2 = card.box_xyxy_px
        assert (card.ink == "large") == (min((x2 - x1 + 1) // 2, y2 - y1 + 1) >= 42)


def test_evidence_is_one_to_six_percent_of_256_tokens():
    builder = SceneBuilder("test")
    shares = [
        np.count_nonzero(box_coverage(card.box_xyxy_px, 16, 16)) / 256
        for seed in range(30)
        for card in builder.build(seed, "conjunction", 16, 16).cards
    ]
    assert min(shares) >= 2 / 256 and max(shares) <= 0.06
    assert 0.01 < np.mean(shares) < 0.04


def test_splits_share_no_scan_and_no_photograph():
    materials = [load_material(split) for split in SPLITS]
    for part in ("scan_ids", "photo_names"):
        sets = [set(getattr(material, part)) for material in materials]
        assert all(sets) and len(set.union(*sets)) == sum(map(len, sets))
    bitmaps = [{scan.tobytes() for scan in material.scans} for material in materials]
    assert not bitmaps[0] & bitmaps[2] and not bitmaps[1] & bitmaps[2] and not bitmaps[0] & bitmaps[1]


def test_a_splits_cards_show_its_own_scans():
    material = load_material("test")
    labels = dict(zip(material.scan_ids.tolist(), material.labels.tolist(), strict=True))
    for card in SceneBuilder("test").build(1, "dense", 12, 12).cards:
        assert tuple(labels[scan] for scan in card.scan_ids) == card.digits


def halftone_zone(seed=0):
    """A scene, a card 84 x 28 px or larger with a halftone number, and the zone of its number (x, y) in the image."""
    scene = SceneBuilder("val").build(seed, "color", 16, 16, halftone=1.0)
    card = next(card for card in scene.cards if card.ink == "halftone")
    x1, y1, x2, y2 = card.box_xyxy_px
    x = x1 + (x2 - x1 + 1 - 56) // 2 // 14 * 14
    return scene, card, (x, y1 + (y2 - y1 + 1 - 28) // 2 // 14 * 14)


@pytest.mark.parametrize("seed", range(5))
def test_half_a_size_leaves_a_halftone_number_plain(seed):
    """At full size ink and ground differ by up to .28 of the colour; the half copy shows the ground alone."""
    scene, card, (x, y) = halftone_zone(seed)
    full = np.asarray(scene.image, dtype=float)[y : y + 28, x : x + 56]
    half = np.asarray(half_copy(scene.image), dtype=float)[y // 2 : y // 2 + 14, x // 2 : x // 2 + 28]
    ground = GROUND * np.array(COLORS_RGB[card.color], dtype=float)
    channel = int(ground.argmax())
    inner = (slice(2, -2), slice(2, -2), channel)  # the filter mixes the zone's edge with what lies around it
    assert full[..., channel].std() > 15
    assert half[inner].std() < 2
    assert abs(half[inner].mean() - ground[channel]) < 12  # a card's shade is up to 10 levels off its colour


def test_the_checkerboard_is_tied_to_the_images_pixels():
    """A crop on the grid of visual tokens keeps the phase: bright where (x + y) is even, counted in the crop."""
    scene, card, (x, y) = halftone_zone()
    channel = int(np.argmax(COLORS_RGB[card.color]))
    place = (y // 28, x // 28)
    part = np.asarray(crop(scene.image, place, 2, 3), dtype=float)[y % 28 :, x % 28 :][:28, :56, channel]
    ground = np.median(part)
    rows, columns = np.mgrid[y % 28 : y % 28 + 28, x % 28 : x % 28 + 56]
    # without the card's outline, which may run along the zone's edge
    part, rows, columns = (values[1:-1, 1:-1] for values in (part, rows, columns))
    is_even = (rows + columns) % 2 == 0
    assert (part[is_even] >= ground - 2).mean() > 0.99 and (part[~is_even] <= ground + 2).mean() > 0.99


def test_jpeg_keeps_the_checkerboard():
    scene, card, (x, y) = halftone_zone()
    channel = int(np.argmax(COLORS_RGB[card.color]))
    plain, stored = (
        np.asarray(image, dtype=float)[y : y + 28, x : x + 56, channel]
        for image in (scene.image, through_jpeg(scene.image))
    )
    assert np.corrcoef(plain.ravel(), stored.ravel())[0, 1] > 0.9


def test_inks_follow_the_room_on_a_card():
    assert possible_inks(56, 28) == ["plain"]
    assert possible_inks(84, 28) == ["plain", "halftone"]
    assert possible_inks(112, 56) == ["plain", "large", "halftone"]


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="layout"):
        SceneBuilder("val").build(0, "circle", 8, 8)
    with pytest.raises(ValueError, match=r"64 tokens.*4 x 4"):
        SceneBuilder("val").build(0, "color", 4, 4)
    with pytest.raises(ValueError, match="split"):
        SceneBuilder("private")


def test_dense_scenes_hold_many_cards():
    scene = SceneBuilder("train").build(0, "dense", 16, 16)
    assert len(scene.cards) > 30 and isinstance(scene.image, Image.Image)
