"""Folders as GlimpsePrune+ is released: the published glimpse, and peft 0.15's adapter beside it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import gp
from gp.backbones.adapters import MATRICES, adapter_weights, new_adapter
from gp.convert import main as convert
from gp.formats.adapter_folder import CONFIG, WEIGHTS
from tests.support.glimpses import micro_glimpse
from tests.support.micro_run import save_base

pytest.importorskip("peft")

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (112, 168, 3), dtype=np.uint8))

# of peft 0.15.2, whole
RELEASED_CONFIG = {
    **dict.fromkeys(("auto_mapping", "corda_config", "eva_config", "exclude_modules", "layer_replication")),
    **dict.fromkeys(("layers_pattern", "layers_to_transform", "megatron_config", "modules_to_save", "revision")),
    **{key: {} for key in ("alpha_pattern", "loftq_config", "rank_pattern")},
    **dict.fromkeys(("fan_in_fan_out", "lora_bias", "use_dora", "use_rslora"), False),
    "base_model_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct",
    "bias": "none",
    "inference_mode": True,
    "init_lora_weights": True,
    "lora_alpha": 8,
    "lora_dropout": 0.05,
    "megatron_core": "megatron.core",
    "peft_type": "LORA",
    "r": 4,
    "target_modules": list(MATRICES),
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
}


def random_plus(base):
    """A micro model with random glimpse and adapter."""
    model = gp.from_pretrained(base)
    model.glimpse = micro_glimpse(model.base, prune_layer=2).glimpse
    model.base = new_adapter(model.backbone, 4, 8)
    generator = torch.Generator().manual_seed(0)
    for _, weight in adapter_weights(model.base):
        weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Base, model, and its parts as the original would have released them."""
    folder = tmp_path_factory.mktemp("plus")
    base = save_base(folder / "base")
    model = random_plus(base)
    model.save_pretrained(folder / "ours")
    assert convert([str(folder / "ours"), str(folder / "released"), "--base", base]) == 0
    weights = load_file(folder / "released" / WEIGHTS)
    old = {name.replace("model.language_model.layers", "model.layers"): value for name, value in weights.items()}
    assert old.keys().isdisjoint(weights)
    save_file(old, folder / "released" / WEIGHTS, metadata={"format": "pt"})
    (folder / "released" / CONFIG).write_text(json.dumps(RELEASED_CONFIG))
    assert {path.name for path in (folder / "released").iterdir()} == {
        "config.json",
        "new_modules_gp.pt",
        CONFIG,
        WEIGHTS,
    }
    return base, model, folder / "released"


def outcome(model):
    """Kept tokens and logits of one prompt."""
    inputs = model.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "what ?"}]}],
        **{"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"},
    )
    done = model.prefill(inputs)
    return done.keep_mask, done.logits


def test_both_are_loaded_and_the_model_is_the_same(released):
    base, model, folder = released
    loaded = gp.from_pretrained(base, glimpse=folder)
    kept, logits = outcome(model)
    assert 0 < int(kept.sum()) < kept.numel()
    for one, other in zip((kept, logits), outcome(loaded)):
        assert torch.equal(one, other)
    with loaded.adapter.disable_adapter():
        assert not torch.allclose(logits, outcome(loaded)[1], atol=1e-3)  # the adapter does something


def test_converted_to_ours_with_its_adapter(released, tmp_path):
    base, model, folder = released
    assert convert([str(folder), str(tmp_path / "ours")]) == 0
    loaded = gp.from_pretrained(base, glimpse=tmp_path / "ours")
    assert all(torch.equal(one, other) for one, other in zip(outcome(model), outcome(loaded)))


def test_glimpse_without_adapter_is_refused_where_the_adapter_lies_beside_it(released):
    base, _, folder = released
    with pytest.raises(ValueError, match="the adapter that it belongs to, and this base has no adapter"):
        gp.prune(gp.from_pretrained(base).base, folder)


def test_half_an_adapter_is_refused(released, tmp_path):
    base, _, folder = released
    for path in folder.iterdir():
        if path.name != WEIGHTS:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FileNotFoundError, match=f"no {WEIGHTS}"):
        gp.from_pretrained(base, glimpse=tmp_path)
    assert convert([str(tmp_path), str(tmp_path / "out")]) == 2
