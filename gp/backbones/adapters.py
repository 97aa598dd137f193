"""LoRA adapters of peft on the decoder of a base: wrapping, unwrapping, and their weights.

An adapter lies inside the stock model's own layers, so everything that runs these layers runs it, too. What wraps the
model (`PeftModel`) is kept for switching the adapter off and for saving it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from torch import nn

from gp.backbones.contract import Family

MARK = ".lora_"  # in the name of each weight of an adapter, and of no other one
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ONLY = "default"  # peft's name of the one adapter
KIND = "LORA"


def is_wrapped(model: Any) -> bool:
    """Whether peft has been wrapped around a model."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def stock_of(model: Any) -> Any:
    """The stock model inside what peft made of it, its layers with their adapters; any other model as it is.

    Raises:
        ValueError: an adapter that is no LoRA, or several.
    """
    if not is_wrapped(model):
        return model
    kinds = {name: str(getattr(one.peft_type, "value", one.peft_type)) for name, one in model.peft_config.items()}
    if list(kinds.values()) != [KIND]:
        shown = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise ValueError(f"gp works with one adapter of kind {KIND}; this model has {shown}")
    return model.get_base_model()


def adapter_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and weight of all that adapters have put into a model, wrapped or not."""
    return ((name, weight) for name, weight in model.named_parameters() if MARK in name)


def new_adapter(backbone: Family, rank: int, alpha: float, matrices: Iterable[str] = MATRICES, **more: Any) -> Any:
    """Puts a fresh adapter, which changes nothing yet, on matrices of every decoder layer.

    The matrices of the decoder alone are meant: vision towers have some of the same names.

    Args:
        backbone: of a stock model, whose layers are changed in place.
        rank: of the two factors.
        alpha: their product is multiplied by alpha / rank.
        matrices: names in a layer.
        more: of `peft.LoraConfig`.

    Returns:
        peft's wrapper; only the adapter's weights require gradients, in float32.

    Raises:
        ValueError: peft is not installed, or there is an adapter already.
    """
    need_peft()
    from peft import LoraConfig, get_peft_model

    if any(True for _ in adapter_weights(backbone.model)):
        raise ValueError("this base has an adapter already; gp works with one")
    layers = f"{decoder_name(backbone)}.layers"
    targets = rf"{re.escape(layers)}\.\d+\..*\b({'|'.join(sorted(matrices))})"
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, bias="none", **more)  # type: ignore[arg-type]
    return get_peft_model(backbone.model, config)


def decoder_name(backbone: Family) -> str:
    """The dotted name of the decoder in the stock model."""
    decoder = backbone.text_model
    return next(name for name, module in backbone.model.named_modules() if module is decoder)


def need_peft() -> None:
    """ValueError if peft is not installed."""
    if find_spec("peft") is None:
        raise ValueError(
            "adapters need peft, which is not installed: pip install peft (the extra `plus` of this package)"
        )


def count_trainable(base: nn.Module, glimpse: nn.Module | None) -> dict[str, int]:
    """How many parameters require gradients: of the `glimpse`, of the `adapter`, and of the `base` itself."""
    adapter = {id(weight) for _, weight in adapter_weights(base)}
    of_base = [weight for weight in base.parameters() if weight.requires_grad]
    of_glimpse = [] if glimpse is None else [weight for weight in glimpse.parameters() if weight.requires_grad]
    parts = {
        "glimpse": of_glimpse,
        "adapter": [weight for weight in of_base if id(weight) in adapter],
        "base": [weight for weight in of_base if id(weight) not in adapter],
    }
    return {name: sum(weight.numel() for weight in weights) for name, weights in parts.items()}
