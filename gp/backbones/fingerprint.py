"""Tells a base from another one of the same sizes, whatever it is called and wherever it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gp.backbones.adapters import MARK, adapter_weights

KEPT = "gp_fingerprint"  # attribute of a model whose weights are no longer whole in one process
SAMPLES = 64  # values of each weight
CAST = {torch.float32: (torch.float32, torch.bfloat16, torch.float16)}  # what a base that is loaded so can be cast to


def fingerprint(model: nn.Module) -> dict[str, str]:
    """Digests of values spread over every weight, one per dtype that the same base may be loaded in.

    Weights of an adapter are not the base's.

    Args:
        model: with its weights.

    Returns:
        Name of a dtype ("bfloat16") -> digest of the weights in it: the dtype at hand, and of float32 the narrower
        ones, too, so that a base is known again if it is loaded in another dtype. Two bases differ if digests of one
        dtype do; without a dtype in common, nothing is known. Empty for weights that are quantized or not in memory.
    """
    kept = model.__dict__.get(KEPT)
    return kept or _digests([weight for name, weight in model.named_parameters() if MARK not in name])


def keep_fingerprint(model: nn.Module) -> None:
    """Takes the fingerprint before the weights are cut into shards."""
    model.__dict__.setdefault(KEPT, fingerprint(model))


def adapter_fingerprint(model: nn.Module) -> dict[str, str]:
    """The same of the weights of an adapter alone; empty if there is none."""
    return _digests([weight for _, weight in adapter_weights(model)])


def _digests(weights: Sequence[Tensor]) -> dict[str, str]:
    if not all(_is_plain(weight) for weight in weights) or not weights:
        return {}
    values = [_spread(weight) for weight in weights]
    own = values[0].dtype
    return {str(dtype).removeprefix("torch."): _digest(values, dtype) for dtype in CAST.get(own, (own,))}


def _is_plain(weight: Tensor) -> bool:
    """Whether its numbers lie in memory: not offloaded, and not quantized, by another type or by a class of its own."""
    return type(weight.data) is Tensor and not weight.is_meta and weight.is_floating_point()


def _spread(weight: torch.Tensor) -> torch.Tensor:
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLES)][:SAMPLES].cpu()


def _digest(values: list[torch.Tensor], dtype: torch.dtype) -> str:
    """Names and order do not count: they are transformers', and change with its version."""
    parts = sorted(hashlib.sha256(one.to(dtype).float().numpy().tobytes()).digest() for one in values)
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
