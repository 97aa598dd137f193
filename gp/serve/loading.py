"""The model of the options, on its device."""

from __future__ import annotations

from gp import calls
from gp.backbones.quantizing import quantized
from gp.loading import from_pretrained
from gp.model import GlimpseModel
from gp.serve.options import ServedModel


def load_model(given: ServedModel, device: str) -> GlimpseModel:
    """Loads base and trained parts.

    Raises:
        OSError, ValueError: there is none, or its generation config asks for what does not work on a pruned prompt.
    """
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
