"""Pruning for a model that is loaded already, and its way back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gp.backbones import backbone_of
from gp.formats.glimpse_folder import load_glimpse
from gp.model import GlimpseModel
from gp.types import PruneOptions

UNPRUNED = "gp_unpruned"  # attribute of a pipeline's copy: the pipeline that it was made of


def prune(
    model: Any,
    glimpse: str | Path | None = None,
    *,
    processor: Any = None,
    options: PruneOptions | None = None,
    pruner_settings: Mapping[str, Mapping[str, Any]] | None = None,
    glimpse_revision: str | None = None,
    compile_decode: bool = False,
) -> Any:
    """Puts pruning around a loaded model, or a pipeline of transformers, which stays as it is and usable beside it.

    Nothing of the model changes: no weights, configs, hooks or flags, and none are copied.

    Args:
        model: a stock transformers model of a supported family in eval mode, on its devices and in its dtype; or a
            pipeline that has one.
        glimpse: hub id or folder of trained parts, or "tiny"; None: methods without trained parts only.
        processor: the model's own, for `ask`; None: the pipeline's, or none.
        options: defaults of every call; None: those that the trained parts were saved with.
        pruner_settings: see `GlimpseModel`.
        glimpse_revision: of the hub id.
        compile_decode: see `GlimpseModel`.

    Returns:
        A `GlimpseModel`, or a copy of the pipeline that has one.

    Raises:
        FileNotFoundError, ValueError: see `gp.formats.glimpse_folder.load_glimpse`.
        ValueError: a model of no supported family, or in training mode.
        TypeError: something else than a model or a pipeline; one that is pruned already.
    """
    if (inner := _model_of_pipeline(model)) is not None:
        pruned = copy.copy(model)
        pruned.model = prune(
            inner,
            glimpse,
            processor=processor or model.processor,
            options=options,
            pruner_settings=pruner_settings,
            glimpse_revision=glimpse_revision,
            compile_decode=compile_decode,
        )
        setattr(pruned, UNPRUNED, model)
        return pruned
    if isinstance(model, GlimpseModel) or not hasattr(model, "config") or not hasattr(model, "training"):
        raise TypeError(f"prune takes a transformers model or pipeline that is not pruned yet, got {_kind(model)}")
    if model.training:
        raise ValueError(
            "prune: the model is in training mode, in which its answers are not its own: call model.eval()"
        )
    if glimpse is None:
        return GlimpseModel(model, None, options, processor, pruner_settings, compile_decode).eval()
    backbone = backbone_of(model)
    parts, saved = load_glimpse(glimpse, backbone, glimpse_revision)
    parts = parts.to(backbone.device, backbone.dtype)
    return GlimpseModel(model, parts, options or saved, processor, pruner_settings, compile_decode).eval()


def unwrap(model: Any) -> Any:
    """Gives back the model, or the pipeline, that pruning was put around: the same object.

    Raises:
        TypeError: something that is not pruned.
    """
    if isinstance(model, GlimpseModel):
        return model.base
    if (unpruned := getattr(model, UNPRUNED, None)) is not None:
        return unpruned
    raise TypeError(f"unwrap takes a GlimpseModel, or a pipeline that gp.prune returned, got {_kind(model)}")


def _model_of_pipeline(candidate: Any) -> Any:
    """The model of a transformers pipeline; None for anything else."""
    is_pipeline = hasattr(candidate, "task") and hasattr(candidate, "model") and hasattr(candidate, "processor")
    return candidate.model if is_pipeline else None


def _kind(value: Any) -> str:
    return type(value).__name__
