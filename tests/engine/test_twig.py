"""A glimpse that is read in a twig: the masks of a later prune layer, at the cost of an earlier one."""

from __future__ import annotations

import pytest
import torch

from gp.config import OptimConfig
from gp.engine.conversation import Conversation
from gp.formats.glimpse_folder import load_glimpse, save_glimpse, start_from_glimpse
from gp.model import GlimpseModel
from gp.pruners import GlimpsePruner, Zoom
from gp.training.optimizer import parameter_groups
from gp.types import PruneOptions
from tests.support.glimpses import micro_configs, micro_glimpse
from tests.support.ragged import RAGGED
from tests.support.tiny_models import FAMILIES, Family

LATE = {"prune_layer": 2, "read_layers": [0, 2]}
EARLY = {"prune_layer": 0, "twig": 2, "read_layers": [0, 2]}
GREEDY = {"max_new_tokens": 4, "do_sample": False}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def pair(family) -> tuple[GlimpseModel, GlimpseModel]:
    """The glimpse of layer 2, and one of layer 0 with the same weights and copies of the base's layers 1 and 2."""
    base = family.make()
    late = micro_glimpse(base, **LATE)
    early = micro_glimpse(base, **EARLY)
    early.glimpse.twig.start_from(early.backbone)
    early.glimpse.load_state_dict(late.glimpse.state_dict(), strict=False)
    return late, early


def test_copies_of_the_base_give_the_masks_of_the_later_layer(family, pair):
    inputs = family.inputs(family.fit(RAGGED))
    late, early = (model.prefill(inputs) for model in pair)
    torch.testing.assert_close(early.importance_logits, late.importance_logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(early.keep_mask, late.keep_mask)
    assert 0 < early.keep_mask.sum() < len(early.keep_mask)
    seen = [int(done.layers_run.max()) for done in (late, early)]
    assert seen == [pair[0].backbone.num_layers] * 2
    assert int(early.layers_run.min()) == 1 and int(late.layers_run.min()) == 3  # of the base


def test_the_rest_of_the_base_knows_nothing_of_the_twig(family, pair):
    """What is kept goes on from the prune layer's own output: as with any method that keeps the same there."""
    _, early = pair
    inputs = family.inputs(family.fit(RAGGED))
    done = early.prefill(inputs)
    plain = early.prefill(inputs, "oracle", PruneOptions(), evidence_masks=[mask.float() for mask in done.keep_masks])
    assert torch.equal(plain.keep_mask, done.keep_mask)
    torch.testing.assert_close(plain.logits, done.logits, atol=1e-4, rtol=1e-4)


def test_other_weights_give_other_masks(family, pair):
    _, early = pair
    inputs = family.inputs(family.fit(RAGGED))
    before = early.prefill(inputs).importance_logits
    weight = early.glimpse.twig.layers[0].mlp.down_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.zero_()
        changed = early.prefill(inputs).importance_logits
        weight.copy_(kept)
    assert not torch.allclose(before, changed, atol=1e-3)


def test_a_conversation_reads_the_twig_in_every_turn(family, pair):
    _, early = pair
    inputs = family.inputs(family.fit(RAGGED[:1]))
    turn = Conversation(early.backbone, early.glimpse).turn(inputs, early.options)
    torch.testing.assert_close(turn.logits, early.prefill(inputs).logits, atol=1e-4, rtol=1e-4)


def test_zoom_looks_through_the_twig(family, pair):
    late, early = pair
    inputs = family.inputs(family.fit(RAGGED))
    masks = [model.prefill(inputs, Zoom(model.glimpse, glance=1.0)).keep_mask for model in (late, early)]
    assert torch.equal(*masks)


def test_saved_and_read_again(family, pair, tmp_path):
    _, early = pair
    save_glimpse(tmp_path, early.glimpse, early.backbone, early.options)
    again = GlimpseModel(early.base, *load_glimpse(tmp_path, early.backbone))
    inputs = family.inputs(family.fit(RAGGED[:2]))
    assert torch.equal(again.prefill(inputs).importance_logits, early.prefill(inputs).importance_logits)
    assert torch.equal(again.generate(**inputs, **GREEDY), early.generate(**inputs, **GREEDY))


def test_it_starts_from_another_glimpse(family, pair, tmp_path):
    late, early = pair
    save_glimpse(tmp_path, late.glimpse, late.backbone, late.options)
    fresh = micro_glimpse(early.base, seed=1, **EARLY)
    twig = {name: weight.clone() for name, weight in fresh.glimpse.twig.state_dict().items()}
    start_from_glimpse(fresh.glimpse, fresh.backbone, str(tmp_path))
    for name, weight in late.glimpse.state_dict().items():
        assert torch.equal(fresh.glimpse.state_dict()[name], weight)
    assert all(torch.equal(fresh.glimpse.twig.state_dict()[name], weight) for name, weight in twig.items())
    other = micro_glimpse(early.base, prune_layer=2)  # reads other layers
    with pytest.raises(ValueError, match=r"init_from_glimpse .*read_layers"):
        start_from_glimpse(other.glimpse, other.backbone, str(tmp_path))


def test_the_twig_learns_at_its_own_rate(pair):
    groups = parameter_groups(pair[1].glimpse, OptimConfig(lr=1e-3, twig_lr_scale=0.1))
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates["twig"] == pytest.approx(1e-4) and rates["vip"] == 1e-3
    learned = {id(parameter) for group in groups for parameter in group["params"]}
    assert learned == {id(parameter) for parameter in pair[1].glimpse.parameters()}
    assert "twig" not in {group["name"] for group in parameter_groups(pair[0].glimpse, OptimConfig())}


def test_layers_that_are_not_there_are_refused(family, pair):
    with pytest.raises(ValueError, match=r"glimpse.prune_layer \+ glimpse.twig \[4\] outside 0..3"):
        GlimpsePruner.build(pair[0].backbone, *micro_configs(prune_layer=2, twig=2))


def test_a_base_without_plain_weights_is_refused(family, pair):
    _, early = pair
    layer = early.backbone.decoder_layer(1)
    linear = layer.self_attn.q_proj
    layer.self_attn.q_proj = torch.nn.Sequential(linear)  # as an adapter hangs itself around it
    try:
        with pytest.raises(ValueError, match="neither quantized nor with an adapter"):
            early.glimpse.twig.start_from(early.backbone)
    finally:
        layer.self_attn.q_proj = linear
