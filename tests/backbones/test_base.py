"""Bases that the engine would not compute as stock does are refused when they are loaded."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import Dinov2Config, MistralConfig, SiglipVisionConfig

import gp
from gp.backbones import backbone_of
from tests.support.bases import BASES
from tests.support.tiny_models import FAMILIES, tiny_inputs, tiny_llava, tiny_llava_inputs, tiny_qwen

pytestmark = pytest.mark.core
GREEDY = {"max_new_tokens": 4, "do_sample": False}


def test_sliding_windows(tmp_path):
    folder = BASES["qwen2_5_vl"](tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"] |= {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    config["text_config"]["layer_types"] = ["full_attention"] + ["sliding_attention"] * 3
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="decoder layers with sliding_attention; only full attention works"):
        gp.from_pretrained(folder)


def test_a_base_on_several_devices_that_nobody_has_placed():
    model = tiny_qwen()
    model.model.language_model.layers[2].to("meta")
    with pytest.raises(ValueError, match=r"this base is on cpu, meta, .*device_map=\.\.\."):
        gp.prune(model)


def like_llava(text=None, vision=None, **changes):
    """A micro LLaVA with another decoder or tower, of which only the config matters."""
    model = tiny_llava()
    for name, value in changes.items():
        setattr(model.config, name, value)
    if text is not None:
        model.model.language_model.config = text
    if vision is not None:
        model.config.vision_config = vision
    return model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": MistralConfig(sliding_window=16)}, "decoder layers with sliding_attention"),
        (
            {"vision": Dinov2Config()},
            "vision tower of type 'dinov2'; 'clip_vision_model' and 'siglip_vision_model' work",
        ),
        ({"vision_feature_select_strategy": "full"}, r"vision_feature_select_strategy 'full'.*\[CLS\]"),
        ({"vision": SiglipVisionConfig()}, "'default'; a tower of type 'siglip_vision_model' works with 'full'"),
    ],
    ids=["mistral", "dinov2", "full", "siglip"],
)
def test_llava_of_other_parts(changes, message):
    with pytest.raises(ValueError, match=message):
        backbone_of(like_llava(**changes))


def test_a_mistral_without_windows_is_like_any_other():
    assert backbone_of(like_llava(text=MistralConfig(sliding_window=None))).num_layers == 32


def test_a_decoder_that_normalises_queries():
    model = tiny_llava()
    model.model.language_model.layers[0].self_attn.q_norm = torch.nn.Identity()
    with pytest.raises(ValueError, match="normalises queries"):
        backbone_of(model)


@pytest.mark.parametrize("layers", [-2, [-2], [-3, -2], [1, 3]], ids=str)
def test_llava_that_takes_several_vision_layers(layers):
    model = tiny_llava()
    if isinstance(layers, list):
        projector = torch.nn.Linear(32 * len(layers), 64)
        model.model.multi_modal_projector.linear_1 = projector.requires_grad_(False)
        model.config.vision_feature_layer = layers
    pruned, inputs = gp.prune(model), tiny_llava_inputs([([(5, 5)], 6), ([(5, 5)], 9)])
    assert torch.equal(pruned.generate(**inputs, pruner="none", **GREEDY), model.generate(**inputs, **GREEDY))
    deepest = max(layer % 5 for layer in (layers if isinstance(layers, list) else [layers]))
    assert pruned.backbone.attention_blocks == (0, deepest - 1)
    for name in ("visionzip", "vscan"):
        pruned.generate(**inputs, pruner=name, budget=0.5, **GREEDY)


@pytest.mark.parametrize("name", FAMILIES)
def test_features_that_do_not_match_the_tokens(name, monkeypatch):
    family = FAMILIES[name]
    model, inputs = gp.prune(family.make()), family.inputs(family.fit([([(4, 6)], 9)]))
    see = model.backbone.see
    features = see(inputs)
    monkeypatch.setattr(model.backbone, "see", lambda *args: features.repeat(2))
    with pytest.raises(ValueError, match=r"hold \d+ image tokens, but the vision tower yields \d+ features"):
        model.generate(**inputs, **GREEDY)


def test_image_tokens_without_their_image_and_the_other_way_round():
    model, inputs = gp.prune(tiny_qwen()), tiny_inputs([([(4, 6)], 9)])
    with pytest.raises(ValueError, match="24 image tokens, but the 0 images"):
        model.generate(**{k: v for k, v in inputs.items() if k not in ("pixel_values", "image_grid_thw")}, **GREEDY)
    text = tiny_inputs([([], 9)])
    with pytest.raises(ValueError, match="0 image tokens, but the 1 images"):
        model.generate(**{**inputs, **text}, **GREEDY)
