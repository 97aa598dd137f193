"""LVLM families, by transformers' model type. A new one is a file here and an entry in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from gp.backbones.attention import Rotary, read_attention
from gp.backbones.base import Backbone
from gp.backbones.compat import CACHE
from gp.backbones.host import on_host
from gp.backbones.layer_masks import LayerMasks
from gp.backbones.layout import VIDEO_KEYS
from gp.backbones.llava import Llava
from gp.backbones.qwen2_5_vl import Qwen2_5_VL
from gp.backbones.qwen3_vl import Qwen3VL
from gp.backbones.source import BaseSource

FAMILIES: dict[str, type[Backbone]] = {family.model_type: family for family in (Qwen2_5_VL, Qwen3VL, Llava)}


def backbone_of(model: PreTrainedModel) -> Backbone:
    """The adapter of a loaded model.

    Raises:
        ValueError: no adapter for this family, or a decoder or vision tower that the adapter does not know.
    """
    model_type = model.config.model_type
    if model_type not in FAMILIES:
        raise ValueError(f"no backbone for model type {model_type!r}; there is one for {sorted(FAMILIES)}")
    backbone = FAMILIES[model_type](model)
    backbone.check_base()
    return backbone


def find_family(
    place: str | Path, revision: str | None = None, hub: Mapping[str, Any] | None = None
) -> tuple[type[Backbone], BaseSource]:
    """Finds the family of a base, from which its model and processor are then loaded.

    Args:
        place: hub id or folder.
        revision: branch, tag or commit of the hub id.
        hub: how files are fetched, see `BaseSource`.

    Raises:
        OSError: no such model or folder, or no `config.json` in it.
        ValueError: no adapter for this family.
    """
    config, _ = PretrainedConfig.get_config_dict(str(place), revision=revision, **(hub or {}))
    for family in FAMILIES.values():
        if family.reads(config):
            return family, BaseSource(place, revision, config, hub or {})
    raise ValueError(f"{place}: no backbone for model type {config.get('model_type')!r}; there is {sorted(FAMILIES)}")


__all__ = [
    "CACHE",
    "FAMILIES",
    "VIDEO_KEYS",
    "Backbone",
    "LayerMasks",
    "Rotary",
    "backbone_of",
    "find_family",
    "on_host",
    "read_attention",
]
