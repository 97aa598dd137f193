"""Random draw: seeded, uniform, and independent of the batch."""

from __future__ import annotations

from collections import Counter

from gp.pruners.random import RandomPruner, _draw
from tests.support.views import hand_view, kept


def test_one_seed_draws_the_same_and_another_one_others():
    pruner, embeds = RandomPruner(), [[1.0]] * 40
    first, again, other = (kept(pruner, hand_view(embeds, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other and len(first) == len(other) == 20


def test_a_prompts_draw_does_not_depend_on_its_batch():
    alone, batched = _draw([6], [3]), _draw([4, 6], [9, 3])
    assert batched[4:].tolist() == alone.tolist() != _draw([6], [4]).tolist()


def test_every_token_is_kept_as_often_as_the_others():
    pruner, embeds = RandomPruner(), [[1.0]] * 8
    counts = Counter(place for seed in range(400) for place in kept(pruner, hand_view(embeds, ratio=0.25, seed=seed)))
    assert len(counts) == 8 and all(60 < count < 140 for count in counts.values()), "100 each, 5 sigma are 43"
