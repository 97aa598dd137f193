"""Loads the model that users hold from a hub id or folder: base, processor, trained glimpse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gp.backbones import backbone_of, find_family
from gp.backbones.processor import load_processor
from gp.config import TrainConfig
from gp.config.load import processor_options, prune_options
from gp.embedded import BASE_DIR
from gp.formats.glimpse_folder import EMBEDDED, load_glimpse
from gp.model import GlimpseModel


def from_pretrained(
    base: str | Path,
    glimpse: str | Path | None = None,
    *,
    revision: str | None = None,
    glimpse_revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    attn_implementation: str | None = None,
    device_map: Any = None,
    **processor_options: Any,
) -> GlimpseModel:
    """Loads a base and, if given, its trained glimpse.

    Args:
        base: hub id or folder of a supported model, or "tiny" (embedded, offline).
        glimpse: hub id or folder of trained parts (ours or the published format), or "tiny".
        revision, glimpse_revision: of the hub ids.
        dtype: of the base and the trained parts; "auto": what the base was saved in.
        attn_implementation: `eager`, `sdpa`, `flash_attention_2`, ...; transformers' own switch.
        device_map: as in transformers.
        processor_options: see `gp.backbones.processor.load_processor`: `min_pixels`, `max_pixels` or `do_pad`.

    Raises:
        FileNotFoundError, ValueError: see `gp.formats.glimpse_folder.load_glimpse`.
    """
    place = BASE_DIR if str(base) == EMBEDDED else base
    family, source = find_family(place, revision)
    model = family.load(source, dtype=dtype, attn_implementation=attn_implementation, device_map=device_map)
    if str(base) == EMBEDDED:
        model.config.name_or_path = EMBEDDED
    processor = load_processor(place, revision=revision, **processor_options)
    if glimpse is None:
        return GlimpseModel(model, processor=processor)
    parts, options = load_glimpse(glimpse, backbone_of(model), glimpse_revision)
    return GlimpseModel(model, parts.to(model.device, model.dtype), options, processor)


def load_base(config: TrainConfig) -> GlimpseModel:
    """Loads the base, processor and pruning options of a config (sections `model` and `prune`), without a glimpse."""
    settings = config.model
    model = from_pretrained(
        settings.base,
        revision=settings.revision,
        dtype=getattr(torch, settings.dtype),
        attn_implementation=settings.attn_implementation,
        **processor_options(config),
    )
    model.options = prune_options(config)
    return model
