"""The real sizes, on the meta device: our parts have the names and shapes of the released checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from gp.backbones import backbone_of
from gp.config import load_config
from gp.formats.published import make_config
from gp.pruners import GlimpsePruner
from gp.types import PruneOptions
from tests.parity import parameter_name

ROOT = Path(__file__).resolve().parent.parent
QWEN = {  # text: hidden, layers, heads, kv heads, inner; vision: hidden 1280, 32 blocks, 16 heads in all
    "qwen3b": (2048, 36, 16, 2, 11008),
    "qwen7b": (3584, 28, 28, 4, 18944),
}
LLAVA = {"llava7b": (4096, 32, 32, 11008), "llava13b": (5120, 40, 40, 13824)}  # hidden, layers, heads, inner
PUBLISHED = {  # prune layer, taps, raw attention logits
    "qwen3b": (23, [31, 23, 15, 7], True),
    "qwen7b": (18, [31, 23, 15, 7], True),
    "llava7b": (21, [23, 17, 11, 5], False),
    "llava13b": (26, [23, 17, 11, 5], False),
}


def meta_base(name: str) -> PreTrainedModel:
    with torch.device("meta"):
        return meta_qwen(*QWEN[name]) if name in QWEN else meta_llava(*LLAVA[name])


def meta_qwen(hidden: int, layers: int, heads: int, kv_heads: int, inner: int) -> PreTrainedModel:
    text = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": inner, "vocab_size": 151936}
    text |= {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    vision = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "out_hidden_size": hidden, "intermediate_size": 3420}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def meta_llava(hidden: int, layers: int, heads: int, inner: int) -> PreTrainedModel:
    """CLIP ViT-L/14 at 336 px."""
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    text = LlamaConfig(**sizes, intermediate_size=inner, vocab_size=32000)
    vision = CLIPVisionConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, image_size=336,
        patch_size=14,
    )  # fmt: skip
    return LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision))


def released_shapes(hidden: int, layers: int, heads: int, vision: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released `new_modules_gp.pt`, entry by entry (VIP width 256, condition 512)."""
    shapes = {"learnable_embeddings": (layers, 1, hidden), "le_norm.weight": (hidden,)}
    shapes |= {"le_proj.weight": (hidden, hidden), "le_proj.bias": (hidden,)}
    shapes |= {"attn_fuser.attn_in_proj.weight": (256, heads), "attn_fuser.attn_in_proj.bias": (256,)}
    shapes |= {"attn_fuser.attn_out_projs.3.weight": (1, 256), "attn_fuser.attn_out_projs.3.bias": (1,)}
    for k in range(4):
        shapes |= {f"attn_fuser.cond_in_projs.{k}.weight": (512, vision), f"attn_fuser.cond_in_projs.{k}.bias": (512,)}
        layer = f"attn_fuser.layers.{k}"
        shapes |= {f"{layer}.norm{n}.weight": (256,) for n in (1, 2)}
        shapes |= {f"{layer}.attn.{x}_proj.weight": (768, 768) for x in "qk"}
        shapes |= {f"{layer}.attn.{x}_proj.weight": (256, 256) for x in "vo"}
        for x, shape in (("gate", (512, 256)), ("up", (512, 256)), ("down", (256, 512))):
            shapes |= {f"{layer}.mlp.{x}_proj.weight": shape, f"{layer}.mlp.{x}_proj.bias": shape[:1]}
    return shapes


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_of_the_released_parts(name):
    config = load_config(ROOT / f"configs/{name}.yaml")
    backbone = backbone_of(meta_base(name))
    with torch.device("meta"):
        pruner = GlimpsePruner.build(backbone, config.glimpse, config.vip)
    ours = {key: tuple(value.shape) for key, value in pruner.state_dict().items()}
    hidden, layers, heads, *_ = QWEN[name] if name in QWEN else LLAVA[name]
    shapes = released_shapes(hidden, layers, heads, 1280 if name in QWEN else 1024)
    assert ours == {parameter_name(key): shape for key, shape in shapes.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_configs_state_the_published_settings(name):
    config = load_config(ROOT / f"configs/{name}.yaml")
    prune_layer, taps, raw_logits = PUBLISHED[name]
    if name in QWEN:
        base = {"model_type": "qwen2_5_vl", "vision_config": {"hidden_size": 1280}}
    else:
        base = {"model_type": "llava", "mm_vision_tower": "clip", "mm_hidden_size": 1024}
    hidden, layers, heads, *_ = QWEN.get(name) or LLAVA[name]
    base |= {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    published = make_config(base, config.glimpse, config.vip, PruneOptions())
    assert published["reduce_layer"] == prune_layer and published["selected_layers"] == [prune_layer]
    assert published["selected_visual_layers"] == taps
    assert published["use_attention_logits"] == raw_logits and published["attn_fuse_global"]
    sizes = [published[key] for key in ("attn_fuse_size", "visual_cond_size", "attn_fuse_num_heads")]
    assert sizes == [256, 512, 4]
    json.dumps(published)


def test_the_config_of_qwen3_fits_its_real_size():
    config = load_config(ROOT / "configs/qwen3vl8b.yaml")
    text = {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8}
    vision = {"depth": 27, "hidden_size": 1152, "out_hidden_size": 4096}
    with torch.device("meta"):
        base = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision))
        pruner = GlimpsePruner.build(backbone_of(base), config.glimpse, config.vip)
    assert pruner.prune_layer == 23 and pruner.vip.cond_in[0].weight.shape == (512, 1152)
    published = PUBLISHED["qwen3b"]  # as deep as this one
    assert pruner.prune_layer == published[0] and len(pruner.taps) == len(published[1])
