"""LVLM families, by transformers' model type. A new one is a file here and an entry in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from gp.backbones.adapters import stock_of
from gp.backbones.attention import Rotary, read_attention
from gp.backbones.base import Backbone
from gp.backbones.compat import CACHE
from gp.backbones.host import is_placed, on_host
from gp.backbones.layer_masks import LayerMasks
from gp.backbones.layout import VIDEO_KEYS
from gp.backbones.llava import Llava
from gp.backbones.qwen2_5_vl import Qwen2_5_VL
from gp.backbones.qwen3_vl import Qwen3VL
from gp.backbones.source import BaseSource
from gp.plugins import brought, load_class

GROUP = "gp.backbones"  # of entry points: `model_type = package.module:Class`
FAMILIES: dict[str, type[Backbone]] = {family.model_type: family for family in (Qwen2_5_VL, Qwen3VL, Llava)}


def backbone_of(model: PreTrainedModel) -> Backbone:
    """The backbone of a loaded model, or of the stock model that peft has put a LoRA adapter on.

    Raises:
        ValueError: see `family_of` and `gp.backbones.adapters.stock_of`, or a decoder or vision tower that the backbone
            does not know.
    """
    stock = stock_of(model)
    if not hasattr(stock, "lm_head") and stock.config.model_type in FAMILIES:
        raise ValueError(
            f"{type(stock).__name__} has no language-model head, so it answers nothing: load the base by "
            "AutoModelForImageTextToText"
        )
    backbone = family_of(stock.config.model_type)(stock)
    backbone.check_base()
    return backbone


def family_of(model_type: str) -> type[Backbone]:
    """The adapter's class for a model type: one of the package, or of an entry point of that name in `gp.backbones`.

    Raises:
        ValueError: there is none, or it cannot be imported.
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    if model_type in brought(GROUP):
        return load_class("backbone", model_type, Backbone, brought(GROUP)[model_type])
    known = sorted({*FAMILIES, *brought(GROUP)})
    raise ValueError(f"no backbone for model type {model_type!r}; there is one for {known}")


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
    refuse_missing_folder(place)
    config, _ = PretrainedConfig.get_config_dict(str(place), revision=revision, **(hub or {}))
    for family in FAMILIES.values():
        if family.reads(config):
            return family, BaseSource(place, revision, config, hub or {})
    try:
        return family_of(str(config.get("model_type"))), BaseSource(place, revision, config, hub or {})
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def refuse_missing_folder(place: str | Path) -> None:
    """FileNotFoundError for what can only be a folder and is none: the hub would complain of the form of its name."""
    text = str(place)
    is_path = isinstance(place, Path) or Path(text).is_absolute() or text.startswith(("./", "../", "~"))
    if (is_path or text.count("/") > 1) and not Path(text).is_dir():
        raise FileNotFoundError(f"base {place}: no such folder")


__all__ = [
    "CACHE",
    "FAMILIES",
    "VIDEO_KEYS",
    "Backbone",
    "LayerMasks",
    "Rotary",
    "backbone_of",
    "family_of",
    "find_family",
    "is_placed",
    "on_host",
    "read_attention",
]
