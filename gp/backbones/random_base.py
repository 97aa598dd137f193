"""Models with random weights of any size, for measuring."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel


def make_config(model_type: str, **settings: Any) -> PretrainedConfig:
    """The config object of a family; what `settings` leave out is transformers' default.

    Args:
        model_type: as in `config.json`.
        settings: as in `config.json`, `text_config` and `vision_config` as dicts.
    """
    return AutoConfig.for_model(model_type, **settings)


def random_base(config: PretrainedConfig, dtype: torch.dtype, attn: str) -> PreTrainedModel:
    """The stock model with new weights from torch's generator, on torch's default device.

    Args:
        config: of the whole model.
        dtype: of its weights.
        attn: attention kernel, `attn_implementation` of transformers.

    Raises:
        ImportError, ValueError: the attention kernel is not there.
    """
    return AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=attn)
