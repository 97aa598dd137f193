"""Targets of scenes."""

from gp.embedded.making.scene_stream import IGNORE, dense_targets
from gp.embedded.making.scenes import SceneBuilder


def test_dense_targets_name_the_card_under_a_token():
    scene = SceneBuilder("val").build(5, "color")
    targets = dense_targets(scene.cards).reshape(4, 8, 8)
    for card in scene.cards:
        x1, y1, _, _ = card.box_xyxy_px
        if x1 % 28 == y1 % 28 == 0:  # on the token grid: both tokens are the card's alone
            assert (targets[2, y1 // 28, x1 // 28 : x1 // 28 + 2] == card.digits[0]).all()
            assert (targets[3, y1 // 28, x1 // 28 : x1 // 28 + 2] == card.digits[1]).all()
    assert ((targets[0] == 0) == (targets[1] == 0)).all()
    assert (targets[2:, targets[0] == 0] == IGNORE).all()
