"""Reading the checkpoints of runs back: for a run that goes on, and for an evaluation."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gp.runs.differences import refuse_other_base

TRAINED = "model.glimpse."  # what the LightningModule calls the trained parts; nothing else is in its `state_dict`
NOTE = "gp"  # our entry in a Lightning checkpoint, with `base`: the base that the parts were trained on
NEEDED = {"state_dict", "global_step"}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of a run; only tensors and plain values are unpickled.

    Raises:
        ValueError: another kind of file, or a truncated one.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not set(checkpoint) >= NEEDED:
            raise ValueError("no weights in it")
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"ckpt {path}: not a checkpoint of a run, or a truncated one ({reason:.200})") from error
    return checkpoint


def trained_parts(
    checkpoint: Mapping[str, Any], base: Mapping[str, Any], expected: Mapping[str, Tensor], where: str | Path
) -> dict[str, Tensor]:
    """Takes the trained parts out of a checkpoint, once they fit.

    Args:
        checkpoint: from `read_checkpoint`.
        base: shape of the base at hand, see `gp.formats.glimpse_folder.base_shape`.
        expected: the parts' own `state_dict`; only names and shapes count.
        where: file or option that errors name.

    Returns:
        Tensors by their names in `expected`.

    Raises:
        ValueError: no trained parts, those of another base, or of other names and shapes.
    """
    state = checkpoint["state_dict"]
    parts = {key.removeprefix(TRAINED): value for key, value in state.items() if key.startswith(TRAINED)}
    if not parts:
        raise ValueError(f"ckpt {where}: holds no {TRAINED}* but {', '.join(sorted(state)[:3]) or 'nothing'}")
    refuse_other_base(checkpoint.get(NOTE, {}).get("base"), base, f"ckpt {where}")
    refuse_other_shapes(parts, expected, where)
    return parts


def refuse_other_shapes(there: Mapping[str, Tensor], here: Mapping[str, Tensor], where: str | Path) -> None:
    """Compares names and shapes of trained parts; ValueError names the first that differs."""
    shapes = [{key: tuple(value.shape) for key, value in parts.items()} for parts in (there, here)]
    wrong = [key for key in sorted({*there, *here}) if shapes[0].get(key) != shapes[1].get(key)]
    if wrong:
        found, wanted = shapes[0].get(wrong[0], "missing"), shapes[1].get(wrong[0], "unknown")
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ValueError(
            f"ckpt {where}: {wrong[0]} is {found} there, {wanted} here{more}; "
            "the sections glimpse and vip must be those of the checkpoint"
        )
