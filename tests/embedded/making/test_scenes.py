"""The scene builder: reproducible, disjoint splits, questions that one card answers."""

import numpy as np
import pytest

from gp.embedded.making.scenes import CARD_HEIGHT_PX, CARD_WIDTH_PX, GRID_PX, SPLITS, SceneBuilder, load_material


@pytest.mark.parametrize("kind", ["color", "conjunction", "dense"])
def test_same_seed_same_scene(kind):
    first, second = (SceneBuilder("train", augment=True).build(7, kind) for _ in range(2))
    assert np.array_equal(np.asarray(first.image), np.asarray(second.image))
    assert (first.cards, first.questions, first.source_id) == (second.cards, second.questions, second.source_id)
    assert not np.array_equal(
        np.asarray(first.image), np.asarray(SceneBuilder("train", augment=True).build(8, kind).image)
    )


def test_splits_share_no_scan_and_no_photo():
    materials = [load_material(split) for split in SPLITS]
    scan_sets = [set(material.scan_ids.tolist()) for material in materials]
    pixel_sets = [{photo.tobytes() for photo in material.photos} for material in materials]
    for sets in (scan_sets, pixel_sets, [set(material.photo_names) for material in materials]):
        assert all(sets)
        assert len(set.union(*sets)) == sum(len(s) for s in sets)
    assert sum(len(s) for s in scan_sets) == 1797
    # Not one bitmap occurs twice under two numbers either.
    bitmaps = [{scan.tobytes() for scan in material.scans} for material in materials]
    assert not bitmaps[2] & (bitmaps[0] | bitmaps[1])


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_use_their_own_split(split):
    allowed = set(load_material(split).scan_ids.tolist())
    for seed in range(20):
        scene = SceneBuilder(split).build(seed, "color")
        assert {scan for card in scene.cards for scan in card.scan_ids} <= allowed
        assert scene.source_id.split("/")[3].startswith(f"{split}_")


@pytest.mark.parametrize("kind", ["color", "conjunction"])
def test_boxes_lie_on_the_grid_and_never_overlap(kind):
    for seed in range(50):
        scene = SceneBuilder("val").build(seed, kind)
        covered = np.zeros((224, 224), dtype=int)
        assert len(scene.cards) == 6
        for card in scene.cards:
            x1, y1, x2, y2 = card.box_xyxy_px
            assert (x2 - x1 + 1, y2 - y1 + 1) == (CARD_WIDTH_PX, CARD_HEIGHT_PX)
            assert x1 % GRID_PX == y1 % GRID_PX == 0
            covered[y1 : y2 + 1, x1 : x2 + 1] += 1
        assert covered.max() == 1
        assert covered.sum() == 6 * CARD_WIDTH_PX * CARD_HEIGHT_PX


def test_color_questions_have_one_card_of_that_color():
    for seed in range(50):
        scene = SceneBuilder("test").build(seed, "color")
        assert len({card.color for card in scene.cards}) == 6
        assert len(scene.questions) == 6
        for question in scene.questions:
            (card,) = [card for card in scene.cards if card.color in question.text.split()]
            assert question.boxes_xyxy_px == (card.box_xyxy_px,)
            assert question.answer == f"{card.digits[0]} {card.digits[1]}"


def test_conjunction_questions_need_color_and_shape():
    for seed in range(50):
        scene = SceneBuilder("test").build(seed, "conjunction")
        assert len(scene.questions) >= 4
        for question in scene.questions:
            words = question.text.split()
            same_color = [card for card in scene.cards if card.color in words]
            same_shape = [card for card in scene.cards if card.shape in words]
            assert len(same_color) == 2
            assert len(same_shape) >= 2
            (card,) = [card for card in same_color if card in same_shape]
            assert question.boxes_xyxy_px == (card.box_xyxy_px,)
            assert question.answer == f"{card.digits[0]} {card.digits[1]}"


def test_digits_are_drawn_where_the_box_says():
    # The same scene without ink would be flat inside: dark pixels must appear in both halves of every card.
    scene = SceneBuilder("test").build(3, "color")
    gray = np.asarray(scene.image.convert("L"), dtype=float)
    for card in scene.cards:
        x1, y1, _, y2 = card.box_xyxy_px
        for left in (x1, x1 + 28):
            inside = gray[y1 + 4 : y2 - 3, left + 4 : left + 24]
            assert inside.min() < 0.6 * np.percentile(inside, 95)


def test_unknown_split_and_kind_are_refused():
    with pytest.raises(ValueError, match="split must be one of"):
        SceneBuilder("dev")
    with pytest.raises(ValueError, match="kind must be one of"):
        SceneBuilder("val").build(0, "shape")
