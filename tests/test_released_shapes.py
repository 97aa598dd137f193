"""The real sizes, on the meta device: our parts have the names and shapes of the released checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from gp.backbones import backbone_of
from gp.config import load_config
from gp.pruners import GlimpsePruner
from gp.reference_format import make_config, parameter_name
from gp.types import PruneOptions

ROOT = Path(__file__).resolve().parent.parent
SIZES = {  # text: hidden, layers, heads, kv heads, inner; vision: hidden 1280, 32 blocks, 16 heads in all
    "qwen3b": (2048, 36, 16, 2, 11008),
    "qwen7b": (3584, 28, 28, 4, 18944),
}


def meta_base(name: str) -> Qwen2_5_VLForConditionalGeneration:
    hidden, layers, heads, kv_heads, inner = SIZES[name]
    text = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": inner, "vocab_size": 151936}
    text |= {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    vision = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "out_hidden_size": hidden, "intermediate_size": 3420}
    with torch.device("meta"):
        return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def released_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released `new_modules_gp.pt`, entry by entry (VIP width 256, condition 512)."""
    hidden, layers, heads, *_ = SIZES[name]
    shapes = {"learnable_embeddings": (layers, 1, hidden), "le_norm.weight": (hidden,)}
    shapes |= {"le_proj.weight": (hidden, hidden), "le_proj.bias": (hidden,)}
    shapes |= {"attn_fuser.attn_in_proj.weight": (256, heads), "attn_fuser.attn_in_proj.bias": (256,)}
    shapes |= {"attn_fuser.attn_out_projs.3.weight": (1, 256), "attn_fuser.attn_out_projs.3.bias": (1,)}
    for k in range(4):
        shapes |= {f"attn_fuser.cond_in_projs.{k}.weight": (512, 1280), f"attn_fuser.cond_in_projs.{k}.bias": (512,)}
        layer = f"attn_fuser.layers.{k}"
        shapes |= {f"{layer}.norm{n}.weight": (256,) for n in (1, 2)}
        shapes |= {f"{layer}.attn.{x}_proj.weight": (768, 768) for x in "qk"}
        shapes |= {f"{layer}.attn.{x}_proj.weight": (256, 256) for x in "vo"}
        for x, shape in (("gate", (512, 256)), ("up", (512, 256)), ("down", (256, 512))):
            shapes |= {f"{layer}.mlp.{x}_proj.weight": shape, f"{layer}.mlp.{x}_proj.bias": shape[:1]}
    return shapes


@pytest.mark.parametrize("name", SIZES)
def test_names_and_shapes_of_the_released_parts(name):
    config = load_config(ROOT / f"configs/{name}.yaml")
    with torch.device("meta"):
        pruner = GlimpsePruner.build(backbone_of(meta_base(name)), config.glimpse, config.vip)
    ours = {key: tuple(value.shape) for key, value in pruner.state_dict().items()}
    assert ours == {parameter_name(key): shape for key, shape in released_shapes(name).items()}


@pytest.mark.parametrize(("name", "prune_layer"), [("qwen3b", 23), ("qwen7b", 18)])
def test_configs_state_the_published_settings(name, prune_layer):
    config = load_config(ROOT / f"configs/{name}.yaml")
    published = make_config(
        {"model_type": "qwen2_5_vl", "num_hidden_layers": SIZES[name][1]}, config.glimpse, config.vip, PruneOptions()
    )
    assert published["reduce_layer"] == prune_layer and published["selected_layers"] == [prune_layer]
    assert published["selected_visual_layers"] == [31, 23, 15, 7]
    assert published["use_attention_logits"] and published["attn_fuse_global"]
    assert (published["attn_fuse_size"], published["visual_cond_size"], published["attn_fuse_num_heads"]) == (
        256,
        512,
        4,
    )
    json.dumps(published)
