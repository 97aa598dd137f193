"""The model of the options, on its device."""

from __future__ import annotations

import torch

from gp import calls
from gp.backbones.quantizing import quantized
from gp.loading import from_pretrained
from gp.model import GlimpseModel
from gp.serve.options import ServedModel


def load_model(given: ServedModel, device: str) -> GlimpseModel:
    """Loads base and trained parts.

    Raises:
        OSError, ValueError: no such base or device, no kernels for it there, or its generation config asks for what
            does not work on a pruned prompt.
    """
    check_device(given, device)
    more = {name: getattr(given, name) for name in ("min_pixels", "max_pixels", "do_pad", "device_map")}
    model = from_pretrained(
        given.base,
        glimpse=given.glimpse,
        revision=given.revision,
        glimpse_revision=given.glimpse_revision,
        dtype=given.dtype,
        attn_implementation=given.attn_implementation,
        fast_tower=given.fast_tower,
        **quantized(given.quantization, given.dtype),
        **{name: value for name, value in more.items() if value is not None},
    ).to(device)
    calls.refuse(model.backbone, {})
    return model


def check_device(given: ServedModel, device: str) -> None:
    """ValueError for a device that there is not, or that a quantized base cannot compute on."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"{device!r} is no device: give cpu, cuda:0, ...") from error
    if kind == "cuda" and (torch.device(device).index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"there is no device {device}: this installation of torch sees {count} GPUs")
    if kind == "cpu" and given.quantization == "int4" and given.device_map is None:
        raise ValueError("model.quantization=int4 has no kernels for a CPU; int8 has")
