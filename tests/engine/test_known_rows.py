"""A stage's layer on what stays alone: the same numbers as on all tokens, and less work."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from gp.engine.known_rows import rows_mask
from gp.engine.prefill import prefill
from gp.pruners import GlimpsePruner, RandomPruner
from gp.pruners.fastv import FastV
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.ragged import RAGGED
from tests.support.tiny_models import FAMILIES, tiny_qwen

pytestmark = pytest.mark.core
WAYS = {
    "glimpse": (GlimpsePruner, PruneOptions()),
    "glimpse, budget": (GlimpsePruner, PruneOptions(fixed_keep_ratio=0.3)),
    "random": (RandomPruner, PruneOptions(fixed_keep_ratio=0.3)),
    "fastv": (FastV, PruneOptions(fixed_keep_ratio=0.7)),  # whose caches keep what it drops
}


def rows_through(layer, run) -> tuple[list[int], object]:
    """Rows that go through a decoder layer's MLP while something runs, and what that gave."""
    rows: list[int] = []
    hook = layer.mlp.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[1]))
    try:
        return rows, run()
    finally:
        hook.remove()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_stays_has_the_numbers_of_the_whole_layer(family, attention, way, monkeypatch):
    micro, (kind, options) = FAMILIES[family], WAYS[way]
    model = micro_glimpse(micro.make(attn_implementation=attention))
    inputs, name = micro.inputs(micro.fit(RAGGED)), kind.name
    layer = model.backbone.decoder_layer(1)  # where all four drop

    @torch.no_grad()
    def run():
        return model.prefill(inputs, name, options)

    rows, new = rows_through(layer, run)
    monkeypatch.setattr(kind, "needs_hidden", True)
    all_rows, old = rows_through(layer, run)
    assert rows == [new.attention_mask.shape[1]] and rows[0] < all_rows[0]
    assert torch.equal(new.keep_mask, old.keep_mask) and torch.equal(new.position_ids, old.position_ids)
    assert torch.equal(new.layers_run, old.layers_run) and torch.equal(new.layers_cached, old.layers_cached)
    assert [list(mask.shape) for mask in new.cache_masks] == [list(mask.shape) for mask in old.cache_masks]
    torch.testing.assert_close(new.logits, old.logits, atol=1e-5, rtol=1e-5)
    for one, other, mask in zip(new.cache.layers, old.cache.layers, new.cache_masks, strict=True):
        seen = mask[:, None, :, None]
        torch.testing.assert_close(one.keys * seen, other.keys * seen, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one.values * seen, other.values * seen, atol=1e-5, rtol=1e-5)


def test_a_twig_and_gradients_take_the_whole_layer():
    inputs = FAMILIES["qwen2_5_vl"].inputs([([(6, 5)], 11)])
    twig = micro_glimpse(tiny_qwen(), prune_layer=0, read_layers=[0, 1], twig=1)
    plain = micro_glimpse(tiny_qwen())
    assert twig.glimpse.needs_hidden and not plain.glimpse.needs_hidden
    for model, index, grad in ((twig, 0, False), (plain, 1, True)):
        with torch.set_grad_enabled(grad):
            run = partial(prefill, model.backbone, inputs, model.glimpse, PruneOptions(fixed_keep_ratio=0.3))
            rows, done = rows_through(model.backbone.decoder_layer(index), run)
        assert rows[0] > done.attention_mask.shape[1]


def test_the_mask_of_rows_by_hand():
    seen = torch.tensor([[False, True, True, True]])
    backbone = micro_glimpse(tiny_qwen(attn_implementation="eager")).backbone
    mask = rows_mask(backbone, seen, torch.tensor([[0, 2, 3]])) == 0
    by_hand = [[True, False, False, False], [False, True, True, False], [False, True, True, True]]
    assert mask[0, 0].tolist() == by_hand  # a row of padding sees itself
