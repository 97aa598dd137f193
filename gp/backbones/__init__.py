"""LVLM families, by transformers' model type. A new one is a file here and an entry in `FAMILIES`."""

from transformers import PreTrainedModel

from gp.backbones.base import Backbone, Rotary, read_attention
from gp.backbones.llava import Llava
from gp.backbones.qwen2_5_vl import Qwen2_5_VL

FAMILIES: dict[str, type[Backbone]] = {family.model_type: family for family in (Qwen2_5_VL, Llava)}


def backbone_of(model: PreTrainedModel) -> Backbone:
    """The adapter of a loaded model.

    Raises:
        ValueError: no adapter for this family.
    """
    model_type = model.config.model_type
    if model_type not in FAMILIES:
        raise ValueError(f"no backbone for model type {model_type!r}; there is one for {sorted(FAMILIES)}")
    return FAMILIES[model_type](model)


__all__ = ["FAMILIES", "Backbone", "Rotary", "backbone_of", "read_attention"]
