"""The gate of zoom beside the trained parts: `gate.safetensors`, and what it was trained for in `config.json`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gp.formats.reading import take
from gp.modules import Gate
from gp.runs.writing import write_bytes

GATE = "gate.safetensors"
KEY = "gate"  # in `config.json`
PREFIX = "gate."  # of its tensors among those of a `GlimpsePruner`
SHA = "sha256"


def without_gate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the trained parts that are not the gate's."""
    return {name: value for name, value in weights.items() if not name.startswith(PREFIX)}


def write_gate(folder: Path, gate: Gate | None) -> dict[str, Any]:
    """Writes the head, or removes the one of an earlier export.

    Returns:
        What `config.json` says of it: nothing without a gate.
    """
    path = folder / GATE
    if gate is None:
        path.unlink(missing_ok=True)
        return {}
    content = save({name: value.detach().cpu().contiguous() for name, value in gate.state_dict().items()})
    write_bytes(path, content)
    return {KEY: {SHA: hashlib.sha256(content).hexdigest()}}


def read_gate(folder: Path, config: Mapping[str, Any], hidden_size: int, eps: float) -> Gate | None:
    """Reads the head of a folder of trained parts; None where there is none.

    Args:
        folder: of the trained parts.
        config: its `config.json`.
        hidden_size: D, of the base.
        eps: of its norms.

    Raises:
        ValueError: a file that is missing, that is no safetensors file, whose bytes are not those that were written, or
            whose tensors do not fit.
    """
    if KEY not in config:
        return None
    path = folder / GATE
    facts = take(config, KEY, dict, f"{folder / 'config.json'}: ")
    if not path.is_file():
        raise ValueError(f"{path}: no such file, and config.json names a gate. Copy the folder again")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != facts.get(SHA):
        raise ValueError(f"{path}: not what was written: {SHA} differs. Copy the folder again")
    try:
        weights = load(content)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from error
    gate = Gate(hidden_size, eps)
    expected = {name: list(value.shape) for name, value in gate.state_dict().items()}
    found = {name: list(value.shape) for name, value in weights.items()}
    if found != expected:
        raise ValueError(f"{path}: expected tensors {expected}, got {found}")
    if not all(value.isfinite().all() for value in weights.values()):
        raise ValueError(f"{path}: numbers that are not finite")
    gate.load_state_dict(weights)
    return gate
