"""LoRA adapters on a base: what they touch, what is trainable, and what they change."""

from __future__ import annotations

import pytest
import torch

from gp.backbones import backbone_of
from gp.backbones.adapters import adapter_weights, new_adapter
from gp.backbones.fingerprint import adapter_fingerprint, fingerprint
from gp.model import GlimpseModel
from gp.pruners import OraclePruner
from tests.support.tiny_models import FAMILIES, random_masks

peft = pytest.importorskip("peft")
ALL = pytest.mark.parametrize("family", FAMILIES)


def adapted(family, seed=3):
    """A model with an adapter that does something."""
    backbone = backbone_of(FAMILIES[family].make())
    wrapped = new_adapter(backbone, 4, 8)
    generator = torch.Generator().manual_seed(seed)
    for _, weight in adapter_weights(wrapped):
        weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    return GlimpseModel(wrapped)


@ALL
def test_on_the_decoder_alone(family):
    """Seven matrices of each layer, and none of the vision tower, which has some of the same names."""
    model = adapted(family)
    names = [name for name, _ in adapter_weights(model.base)]
    assert len(names) == 7 * 2 * model.backbone.num_layers
    assert not any("visual" in name or "vision" in name for name in names)
    counts = model.trainable()
    assert counts["adapter"] > 0 and counts["base"] == 0 and counts["glimpse"] == 0


@ALL
def test_a_wrapped_model_answers_as_the_merged_one(family):
    kind = FAMILIES[family]
    prompts = kind.fit([([(4, 4)], 6), ([(2, 4)], 9)])
    inputs, masks = kind.inputs(prompts), random_masks([grids[0] for grids, _ in prompts])
    model = adapted(family)
    plain = GlimpseModel(kind.make())
    pruner = OraclePruner(1)
    found = model.prefill(inputs, pruner, evidence_masks=masks)
    before = plain.prefill(inputs, pruner, evidence_masks=masks)
    with model.adapter.disable_adapter():
        off = model.prefill(inputs, pruner, evidence_masks=masks)
    assert torch.allclose(off.logits, before.logits, atol=1e-5)
    assert not torch.allclose(found.logits, before.logits, atol=1e-2)
    answers = model.generate(**inputs, pruner=pruner, evidence_masks=masks, max_new_tokens=4, do_sample=False)
    merged = GlimpseModel(model.base.merge_and_unload())
    after = merged.prefill(inputs, pruner, evidence_masks=masks)
    assert torch.allclose(found.logits, after.logits, atol=1e-3)
    again = merged.generate(**inputs, pruner=pruner, evidence_masks=masks, max_new_tokens=4, do_sample=False)
    assert torch.equal(answers, again)


def test_fingerprints_tell_base_and_adapter_apart():
    model, other, bare = adapted("qwen2_5_vl"), adapted("qwen2_5_vl", seed=4), FAMILIES["qwen2_5_vl"].make()
    assert fingerprint(model.backbone.model) == fingerprint(bare)
    assert adapter_fingerprint(bare) == {}
    digests = [adapter_fingerprint(one.backbone.model)["float32"] for one in (model, other)]
    assert digests[0] != digests[1]


def test_the_generation_config_reaches_the_decoder():
    model = adapted("qwen2_5_vl")
    config = type(model.generation_config)(max_new_tokens=3)
    model.generation_config = config
    assert model.backbone.model.generation_config is config and model.generation_config is config


def test_refuses_what_it_cannot_run():
    backbone = backbone_of(FAMILIES["qwen2_5_vl"].make())
    other = peft.get_peft_model(
        backbone.model, peft.IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[])
    )
    with pytest.raises(ValueError, match="of kind LORA; this model has default"):
        GlimpseModel(other)
    model = adapted("qwen2_5_vl")
    with pytest.raises(ValueError, match="an adapter already"):
        new_adapter(model.backbone, 2, 2)
    inside = GlimpseModel(model.backbone.model)
    with pytest.raises(ValueError, match="no wrapper of peft's around it"):
        inside.adapter  # noqa: B018
