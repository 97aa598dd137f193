"""Reads LLaVA-1.5 weights in the original naming (`liuhaotian/llava-v1.5-*`) into the stock transformers class.

The numbers are the same as in the `llava-hf` conversions; only names differ, and the vocabulary has no image token.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from gp.backbones.source import BaseSource

PROJECTOR = "mlp2x_gelu"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
RENAMED = {
    "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
    "model.vision_tower.": None,  # read from the vision tower's own folder
    "model.": "model.language_model.",
    "lm_head.": "lm_head.",
}
LLAMA_FIELDS = (
    "vocab_size",
    "max_position_embeddings",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
)


def is_original(config: Mapping[str, Any]) -> bool:
    """Tells if a `config.json` is of the original layout."""
    return "mm_vision_tower" in config


def vision_tower(source: BaseSource) -> str:
    """Place of the CLIP tower: a Hub id, or a folder whose path is given relative to the base's own."""
    named = source.config["mm_vision_tower"]
    folder = Path(source.place) / named
    return str(folder) if folder.is_dir() else named


def load_original(
    source: BaseSource, dtype: str | torch.dtype = "auto", **options: Any
) -> LlavaForConditionalGeneration:
    """Builds the stock class from a base in the original layout.

    Args:
        source: has weights (`*.safetensors` or `pytorch_model*.bin`).
        dtype: of the weights; "auto": what `config.json` says.
        options: of transformers' `from_pretrained`: `attn_implementation`, `device_map`, ...

    Returns:
        As `from_original`.

    Raises:
        ValueError: no weights, another projector than LLaVA-1.5's, or names that do not fit.
    """
    place = str(source.place)
    folder = Path(place)
    if not folder.is_dir():
        patterns = ["*.json", *WEIGHTS]
        folder = Path(snapshot_download(place, revision=source.revision, allow_patterns=patterns, **source.hub))
    if dtype == "auto":
        dtype = getattr(torch, source.config.get("torch_dtype") or "float32")
    vision = CLIPVisionModel.from_pretrained(vision_tower(source), dtype=dtype, **source.hub)
    model = from_original(source.config, _weights(folder), vision, dtype=dtype, **options)
    model.config.name_or_path = place
    return model


def original_config(source: BaseSource) -> LlavaConfig:
    """The config of the stock class, from those of the original base and of its vision tower."""
    return _config(source.config, CLIPVisionConfig.from_pretrained(vision_tower(source), **source.hub))


def from_original(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], vision: CLIPVisionModel, **options: Any
) -> LlavaForConditionalGeneration:
    """Builds the stock class from what an original checkpoint holds.

    Args:
        config: the original `config.json`.
        weights: under the original names, without the vision tower.
        vision: the vision tower.
        options: of transformers' `from_pretrained`: `dtype`, `attn_implementation`, `device_map`.

    Returns:
        The model in eval mode. Its image token is the first id behind the vocabulary, which the original does not
        have: prompts hold that id once per visual token.

    Raises:
        ValueError: another projector than LLaVA-1.5's, or names that do not fit.
    """
    if config.get("mm_projector_type") != PROJECTOR:
        raise ValueError(f"LLaVA: expected mm_projector_type {PROJECTOR!r}, got {config.get('mm_projector_type')!r}")
    renamed = {new: value for old, value in weights.items() if (new := _renamed(old)) is not None}
    renamed |= {f"model.vision_tower.{name}": value for name, value in vision.state_dict().items()}
    loaded: Any = LlavaForConditionalGeneration.from_pretrained(
        None, config=_config(config, vision.config), state_dict=renamed, output_loading_info=True, **options
    )
    model, problems = loaded
    missing, unknown = sorted(problems["missing_keys"]), sorted(problems["unexpected_keys"])
    if missing or unknown or problems["mismatched_keys"]:
        raise ValueError(f"LLaVA: weights do not fit: missing {missing[:4]}, unknown {unknown[:4]}")
    return model.eval()


def _config(config: Mapping[str, Any], vision: CLIPVisionConfig) -> LlavaConfig:
    text = LlamaConfig(
        **{name: config[name] for name in LLAMA_FIELDS if name in config},
        rope_parameters={"rope_type": "default", "rope_theta": config.get("rope_theta", 10000.0)},
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=text.vocab_size,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=config.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="default"
        if config.get("mm_vision_select_feature", "patch") == "patch"
        else "full",
        tie_word_embeddings=config.get("tie_word_embeddings", False),
    )


def _weights(folder: Path) -> dict[str, Tensor]:
    safe, pickled = (sorted(folder.glob(pattern)) for pattern in WEIGHTS)
    if safe:
        parts = [load_file(file) for file in safe]
    else:
        parts = [torch.load(file, map_location="cpu", weights_only=True, mmap=True) for file in pickled]
    if not parts:
        raise ValueError(f"{folder}: no {' and no '.join(WEIGHTS)} in it")
    return {name: value for part in parts for name, value in part.items()}


def _renamed(name: str) -> str | None:
    for old, new in RENAMED.items():
        if name.startswith(old):
            return None if new is None else new + name[len(old) :]
    raise ValueError(f"unknown weight {name!r} in a LLaVA-1.5 checkpoint")
