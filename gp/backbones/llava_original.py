"""Reads LLaVA-1.5 weights in the original naming (`liuhaotian/llava-v1.5-*`) into the stock transformers class.

The numbers are the same as in the `llava-hf` conversions; only names differ, and the vocabulary has no image token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionModel, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

PROJECTOR = "mlp2x_gelu"
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


def is_original(config: dict[str, Any]) -> bool:
    """Whether a `config.json` is of the original layout."""
    return "mm_vision_tower" in config


def load_original(folder: str | Path, dtype: torch.dtype = torch.float32) -> LlavaForConditionalGeneration:
    """Builds the stock class from a folder in the original layout.

    Args:
        folder: with `config.json` and weights (`*.safetensors` or `pytorch_model*.bin`). Its `mm_vision_tower` is a Hub
            id, or a folder relative to this one.
        dtype: of the weights.

    Returns:
        As `from_original`.

    Raises:
        ValueError: no weights, another projector than LLaVA-1.5's, or names that do not fit.
    """
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    tower = folder / config["mm_vision_tower"]
    vision = CLIPVisionModel.from_pretrained(tower if tower.is_dir() else config["mm_vision_tower"], dtype=dtype)
    return from_original(config, _weights(folder), vision).to(dtype)


def from_original(
    config: dict[str, Any], weights: Mapping[str, Tensor], vision: CLIPVisionModel
) -> LlavaForConditionalGeneration:
    """Builds the stock class from what an original checkpoint holds.

    Args:
        config: the original `config.json`.
        weights: under the original names, without the vision tower.
        vision: the vision tower.

    Returns:
        The model in eval mode. Its image token is the first id behind the vocabulary, which the original does not
        have: prompts hold that id once per visual token.

    Raises:
        ValueError: another projector than LLaVA-1.5's, or names that do not fit.
    """
    if config.get("mm_projector_type") != PROJECTOR:
        raise ValueError(f"LLaVA: expected mm_projector_type {PROJECTOR!r}, got {config.get('mm_projector_type')!r}")
    model = LlavaForConditionalGeneration(_config(config, vision))
    renamed = {new: value for old, value in weights.items() if (new := _renamed(old)) is not None}
    renamed |= {f"model.vision_tower.{name}": value for name, value in vision.state_dict().items()}
    problems = model.load_state_dict(renamed, strict=False)
    if problems.missing_keys or problems.unexpected_keys:
        raise ValueError(
            f"LLaVA: weights do not fit: missing {problems.missing_keys[:4]}, unknown {problems.unexpected_keys[:4]}"
        )
    return model.eval()


def _config(config: dict[str, Any], vision: CLIPVisionModel) -> LlavaConfig:
    text = LlamaConfig(
        **{name: config[name] for name in LLAMA_FIELDS if name in config},
        rope_parameters={"rope_type": "default", "rope_theta": config.get("rope_theta", 10000.0)},
    )
    return LlavaConfig(
        vision_config=vision.config,
        text_config=text,
        image_token_index=text.vocab_size,
        image_seq_length=(vision.config.image_size // vision.config.patch_size) ** 2,
        vision_feature_layer=config.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="default" if config.get("mm_vision_select_feature") == "patch" else "full",
        tie_word_embeddings=config.get("tie_word_embeddings", False),
    )


def _weights(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if files:
        parts = [load_file(file) for file in files]
    else:
        files = sorted(folder.glob("pytorch_model*.bin"))
        parts = [torch.load(file, map_location="cpu", weights_only=True) for file in files]
    if not parts:
        raise ValueError(f"{folder}: no *.safetensors and no pytorch_model*.bin in it")
    return {name: value for part in parts for name, value in part.items()}


def _renamed(name: str) -> str | None:
    for old, new in RENAMED.items():
        if name.startswith(old):
            return None if new is None else new + name[len(old) :]
    raise ValueError(f"unknown weight {name!r} in a LLaVA-1.5 checkpoint")
