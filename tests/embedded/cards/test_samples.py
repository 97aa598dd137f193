"""Samples: images, question and evidence boxes of every kind."""

import numpy as np
import pytest

from gp.embedded.cards.samples import SAMPLE_KINDS, draw_sample
from gp.embedded.cards.scene import SceneBuilder

NUM_IMAGES = {"first": 2, "second": 2, "zoom": 2}


@pytest.mark.parametrize("kind", SAMPLE_KINDS)
def test_boxes_lie_in_their_images(kind):
    builder = SceneBuilder("test")
    for seed in range(6):
        sample = draw_sample(builder, kind, 12, 16, seed)
        assert len(sample.images) == len(sample.boxes_xyxy_px) == NUM_IMAGES.get(kind, 1)
        assert any(sample.boxes_xyxy_px)
        for image, boxes in zip(sample.images, sample.boxes_xyxy_px, strict=True):
            assert image.width % 28 == image.height % 28 == 0
            for x1, y1, x2, y2 in boxes:
                assert 0 <= x1 < x2 < image.width and 0 <= y1 < y2 < image.height


@pytest.mark.parametrize("kind", SAMPLE_KINDS)
def test_one_seed_gives_one_sample(kind):
    one, again = (draw_sample(SceneBuilder("val"), kind, 8, 10, 3) for _ in range(2))
    assert one.question == again.question and one.boxes_xyxy_px == again.boxes_xyxy_px
    assert all(np.array_equal(a, b) for a, b in zip(one.images, again.images, strict=True))


def test_a_zoomed_crop_shows_the_asked_card_as_the_scene_does():
    builder = SceneBuilder("val")
    for seed in range(10):
        sample = draw_sample(builder, "zoom", 16, 16, seed)
        glance, look = sample.images
        assert glance.size == (224, 224)
        ((x1, y1, x2, y2),) = sample.boxes_xyxy_px[1]
        (box,) = (card.box_xyxy_px for card in sample.question.evidence)
        assert (x2 - x1, y2 - y1) == (box[2] - box[0], box[3] - box[1])
        assert (x1 - box[0]) % 28 == (y1 - box[1]) % 28 == 0  # cut on the grid of visual tokens
        # The card in the crop, halved, looks as it does in the glance.
        small = np.asarray(look.resize((look.width // 2, look.height // 2)), dtype=float)
        there = small[y1 // 2 + 2 : y2 // 2 - 1, x1 // 2 + 2 : x2 // 2 - 1]
        (gx1, gy1, gx2, gy2) = sample.boxes_xyxy_px[0][0]
        here = np.asarray(glance, dtype=float)[gy1 + 2 : gy2 - 1, gx1 + 2 : gx2 - 1]
        assert np.abs(there - here).mean() < 3


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        draw_sample(SceneBuilder("val"), "smell", 8, 8, 0)
    with pytest.raises(ValueError, match=r"even.*9 x 8"):
        draw_sample(SceneBuilder("val"), "zoom", 9, 8, 0)
