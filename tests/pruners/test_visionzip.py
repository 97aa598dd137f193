"""VisionZip against numbers worked out here."""

from __future__ import annotations

import pytest
import torch

from gp.backbones import backbone_of
from gp.pruners import make_baseline
from gp.pruners.visionzip import VisionZip
from tests.support.tiny_models import tiny_llava, tiny_qwen
from tests.support.views import hand_view, kept

RECEIVED = [0.3, 0.1, 0.9, 0.2, 0.05, 0.8, 0.15, 0.25]
KEYS = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.0, 2.0], [-1.0, 0.1], [5.0, 5.0], [0.1, 3.0], [4.0, -1.0]]
EMBEDS = [[float(j), 10.0 * j] for j in range(8)]
SHOWN = {3: (RECEIVED, KEYS)}


def test_dominant_and_contextual_tokens():
    pruner = VisionZip(3, contextual_of_kept=0.5, contextual_of_all=1.0)
    view = hand_view(EMBEDS, ratio=0.5, vision_attention=SHOWN)
    # 4 of 8 tokens, 2 of them contextual. Dominant: 2 and 5. Others 0 1 3 4 6 7, s = 6 // 2 = 3: numbers 0 and 3 of
    # them, tokens 0 and 4.
    assert pruner.scores(view).tolist() == [1, 0, 2, 0, 1, 2, 0, 0]
    assert kept(pruner, view) == [0, 2, 4, 5]


def test_dropped_tokens_join_the_contextual_one_with_the_most_similar_key():
    pruner = VisionZip(3, 0.5, 1.0)
    view = hand_view(EMBEDS, ratio=0.5, vision_attention=SHOWN)
    merged = pruner.merge(view, pruner.keep(pruner.scores(view), view))
    # cosines to token 0, key (1, 0), and to token 4, key (-1, 0.1): of 1: 0.99 and -0.98; of 3: 0 and 0.1; of 6: 0.03
    # and 0.07; of 7: 0.97 and -1.0. So 1 and 7 join 0, 3 and 6 join 4.
    assert merged[0].tolist() == [0 + (1 + 7) / 2, 0 + (10 + 70) / 2]
    assert merged[4].tolist() == [4 + (3 + 6) / 2, 40 + (30 + 60) / 2]
    assert merged[[2, 5]].tolist() == [EMBEDS[2], EMBEDS[5]]


def test_a_contextual_token_that_nobody_joins_stays_as_it_is():
    keys = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0], [1.0, 0.2], [1.0, -0.1]]
    pruner = VisionZip(3, 0.5, 1.0)
    view = hand_view(EMBEDS, ratio=0.5, vision_attention={3: (RECEIVED, keys)})
    merged = pruner.merge(view, pruner.keep(pruner.scores(view), view))
    assert merged[4].tolist() == EMBEDS[4]
    assert merged[0].tolist() == [(1 + 3 + 6 + 7) / 4, 10 * (1 + 3 + 6 + 7) / 4]


def test_tokens_that_stay_for_another_reason_are_not_merged_away():
    pruner = VisionZip(3, 0.5, 1.0)
    view = hand_view(EMBEDS, grids=[(2, 4)], ratio=0.5, vision_attention=SHOWN)
    view.options = view.options.but(anchors=("br",))
    keep = pruner.keep(pruner.scores(view), view)
    assert keep.nonzero().flatten().tolist() == [0, 2, 4, 5, 7]
    assert pruner.merge(view, keep)[0].tolist() == [0 + 1, 0 + 10]


def test_two_images_are_dealt_their_shares_and_merged_apart():
    pruner = VisionZip(3, 0.5, 1.0)
    grids, shown = [(1, 2), (2, 3)], {3: (RECEIVED, KEYS)}
    view = hand_view(EMBEDS, grids, ratio=0.5, vision_attention=shown)
    # 4 tokens for 2 and 6: 1 and 3. Image 1: int(1 / 2) contextual, so 0. Image 2: 1 contextual, dominant 2 and 5,
    # others 3 4 6 7 with s = 4: token 3, which all join
    assert kept(pruner, view) == [0, 2, 3, 5]
    merged = pruner.merge(view, pruner.keep(pruner.scores(view), view))
    assert merged[3].tolist() == pytest.approx([3 + (4 + 6 + 7) / 3, 30 + 10 * (4 + 6 + 7) / 3])


@pytest.mark.parametrize(
    ("kept_tokens", "size", "published", "expected"),
    [
        (64, 576, (10 / 64, 1.0), 10),
        (128, 576, (10 / 64, 1.0), 20),
        (192, 576, (10 / 64, 1.0), 30),
        (111, 1000, (0.5, 0.05), 50),  # 6.1 % dominant, 5 % contextual
        (222, 1000, (0.5, 0.05), 50),
        (40, 1000, (0.5, 0.05), 20),
        (6, 12, (0.5, 0.05), 1),
    ],
)
def test_published_shares(kept_tokens, size, published, expected):
    generator = torch.Generator().manual_seed(0)
    received, keys = torch.rand(size, generator=generator).tolist(), torch.rand(size, 2, generator=generator).tolist()
    view = hand_view([[1.0]] * size, vision_attention={3: (received, keys)})
    view.options = view.options.but(num_keep=(kept_tokens,))
    roles = VisionZip(3, *published).scores(view)
    assert int((roles == 1).sum()) == expected and int((roles == 2).sum()) == kept_tokens - expected


def test_settings_of_each_family():
    qwen, llava = (make_baseline("visionzip", backbone_of(make())) for make in (tiny_qwen, tiny_llava))
    assert (qwen.contextual_of_kept, qwen.contextual_of_all, qwen.attended) == (0.5, 0.05, (3,))
    # micro LLaVA: 4 blocks, the projector takes the output of block 2
    assert (llava.contextual_of_kept, llava.contextual_of_all, llava.attended) == (10 / 64, 1.0, (2,))
