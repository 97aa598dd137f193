"""A word of the config (`model.quantization`) to transformers' own quantization config."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

LIBRARY = {"int8": "torchao", "int4": "torchao", "nf4": "bitsandbytes"}


def quantized(name: str | None, dtype: str) -> dict[str, Any]:
    """Options of `gp.from_pretrained` that quantize the base's linear layers while it is loaded.

    Weights alone: activations, embeddings and the head stay in `dtype`.

    Args:
        name: `int8` (one scale a row), `int4` (groups of 128) by torchao, `nf4` (NormalFloat with double
            quantization, as of QLoRA, arXiv 2305.14314) by bitsandbytes; None: no options.
        dtype: of what is computed, e.g. "bfloat16".

    Raises:
        ValueError: the library is not installed.
    """
    if name is None:
        return {}
    if find_spec(LIBRARY[name]) is None:
        raise ValueError(
            f"model.quantization={name} needs {LIBRARY[name]}, which is not installed: pip install {LIBRARY[name]}"
        )
    return {"quantization_config": _config(name, dtype)}


def _config(name: str, dtype: str) -> Any:
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if name == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig() if name == "int8" else Int4WeightOnlyConfig())
