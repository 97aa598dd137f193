"""Reading the checkpoints of runs back: for a run that goes on, and for an evaluation."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gp.runs.differences import differences, refuse_other_base
from gp.runs.resuming import NOTE

TRAINED = "model.glimpse."  # what the LightningModule calls the trained parts; nothing else is in its `state_dict`
NEEDED = {"state_dict", "global_step"}
DAMAGED = (
    RuntimeError, pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, AttributeError, ValueError,
    OSError, NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of a run; only tensors and plain values are unpickled.

    Raises:
        ValueError: another kind of file, a truncated one, or one whose bytes are not those that were written.
    """
    try:
        _compare_checksums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not set(checkpoint) >= NEEDED:
            raise ValueError("no weights in it")
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"ckpt {path}: not a checkpoint of a run, or a damaged one ({reason:.200})") from error
    return checkpoint


def _compare_checksums(path: Path) -> None:
    """Compares every record with the CRC-32 that torch wrote and does not read; ValueError names one that differs."""
    with zipfile.ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {name} is wrong: bytes have changed")


def trained_parts(
    checkpoint: Mapping[str, Any],
    base: Mapping[str, Any],
    meaning: Mapping[str, Any],
    expected: Mapping[str, Tensor],
    where: str | Path,
) -> dict[str, Tensor]:
    """Takes the trained parts out of a checkpoint, once they fit.

    Args:
        checkpoint: from `read_checkpoint`.
        base: facts of the base at hand, see `gp.formats.glimpse_folder.base_facts`.
        meaning: of the parts at hand, see `gp.pruners.GlimpsePruner.meaning`.
        expected: the parts' own `state_dict`; only names and shapes count.
        where: file or option that errors name.

    Returns:
        Tensors by their names in `expected`.

    Raises:
        ValueError: no trained parts, those of another base, of another meaning, or of other names and shapes.
    """
    state = checkpoint["state_dict"]
    parts = {key.removeprefix(TRAINED): value for key, value in state.items() if key.startswith(TRAINED)}
    if not parts:
        raise ValueError(f"ckpt {where}: holds no {TRAINED}* but {', '.join(sorted(state)[:3]) or 'nothing'}")
    refuse_other_base(checkpoint.get(NOTE, {}).get("base"), base, f"ckpt {where}")
    refuse_other_meaning(checkpoint[NOTE].get("parts"), meaning, where)
    refuse_other_shapes(parts, expected, where)
    return parts


def adapter_parts(
    checkpoint: Mapping[str, Any],
    base: Mapping[str, Any],
    meaning: Mapping[str, Any],
    expected: Mapping[str, Tensor],
    where: str | Path,
) -> dict[str, Tensor]:
    """Takes the adapter out of a checkpoint of task `grpo`, once it fits.

    Args:
        checkpoint: from `read_checkpoint`.
        base: facts of the base at hand, without an adapter.
        meaning: of the adapter at hand.
        expected: its weights by their names in the checkpoint; only names and shapes count.
        where: file or option that errors name.

    Raises:
        ValueError: another kind of checkpoint, or an adapter of another base, meaning or shape.
    """
    if any(key.startswith(TRAINED) for key in checkpoint["state_dict"]):
        raise ValueError(f"ckpt {where}: holds a glimpse, expected an adapter: a checkpoint of task grpo")
    refuse_other_base(checkpoint.get(NOTE, {}).get("base"), base, f"ckpt {where}")
    if wrong := differences(checkpoint[NOTE].get("parts") or {}, meaning):
        raise ValueError(f"ckpt {where}: {', '.join(map(str, wrong))}; the section adapter must be the checkpoint's")
    refuse_other_shapes(checkpoint["state_dict"], expected, where, "the section adapter")
    return checkpoint["state_dict"]


def gate_parts(
    checkpoint: Mapping[str, Any],
    base: Mapping[str, Any],
    meaning: Mapping[str, Any],
    expected: Mapping[str, Tensor],
    where: str | Path,
) -> dict[str, Tensor]:
    """Takes the gate out of a checkpoint of task `gate`, once it fits.

    Args:
        checkpoint: from `read_checkpoint`.
        base: facts of the base at hand.
        meaning: of the glimpse at hand that the gate reads.
        expected: the gate's own `state_dict`; only names and shapes count.
        where: file or option that errors name.

    Raises:
        ValueError: another kind of checkpoint, or a gate for another base or glimpse.
    """
    prefix, state = f"{TRAINED}gate.", checkpoint["state_dict"]
    if not state or not all(key.startswith(prefix) for key in state):
        raise ValueError(f"ckpt {where}: holds {', '.join(sorted(state)[:3]) or 'nothing'}, expected {prefix}* alone")
    refuse_other_base(checkpoint.get(NOTE, {}).get("base"), base, f"ckpt {where}")
    refuse_other_meaning(checkpoint[NOTE].get("parts"), meaning, where)
    parts = {key.removeprefix(prefix): value for key, value in state.items()}
    refuse_other_shapes(parts, expected, where, "gate.glimpse")
    return parts


def refuse_other_meaning(there: Mapping[str, Any] | None, here: Mapping[str, Any], where: str | Path) -> None:
    """Refuses parts that other settings of equal shapes would read wrongly; ValueError names every difference."""
    if there is None:
        raise ValueError(f"ckpt {where}: does not state the settings that give its weights their meaning")
    if wrong := differences(there, here):
        raise ValueError(
            f"ckpt {where}: {', '.join(map(str, wrong))}; the sections glimpse and vip must be those of the checkpoint"
        )


def refuse_other_shapes(
    there: Mapping[str, Tensor],
    here: Mapping[str, Tensor],
    where: str | Path,
    sections: str = "the sections glimpse and vip",
) -> None:
    """Compares names and shapes of what is trained; ValueError names the first that differs, and the options behind."""
    shapes = [{key: tuple(value.shape) for key, value in parts.items()} for parts in (there, here)]
    wrong = [key for key in sorted({*there, *here}) if shapes[0].get(key) != shapes[1].get(key)]
    if wrong:
        found, wanted = shapes[0].get(wrong[0], "missing"), shapes[1].get(wrong[0], "unknown")
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ValueError(
            f"ckpt {where}: {wrong[0]} is {found} there, {wanted} here{more}; "
            f"{sections} must be those of the checkpoint"
        )
