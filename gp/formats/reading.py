"""What is common to reading any folder of trained parts: one ValueError that names file, key, expected and found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gp.config.schema import GlimpseConfig, PruneConfig, VIPConfig
from gp.config.table import build, defaults_of, refuse_unknown
from gp.pruners import GlimpsePruner
from gp.types import PruneOptions

Schema = TypeVar("Schema")
REQUIRED: Any = object()
WORDS = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", list: "a list", dict: "an object"
}  # fmt: skip


@dataclass(frozen=True)
class BaseShape:
    """Sizes of a base that trained parts depend on: as much of a `Backbone` as their tensors' shapes follow from."""

    num_layers: int
    hidden_size: int
    num_heads: int
    vision_hidden_size: int
    num_vision_taps: int = 10**6  # not written down; a base that lacks one says so when the parts are put on it
    norm_eps: float = 1e-6
    window: int = 4

    @classmethod
    def read(cls, base: Mapping[str, Any], where: str) -> BaseShape:
        """Takes it from the description of a base in a config; ValueError names a size that is missing or none."""
        names = ("num_layers", "hidden_size", "num_heads", "vision_hidden_size")
        sizes = {name: take(base, name, int, where) for name in names}
        if wrong := [name for name, size in sizes.items() if not 0 < size < 10**6]:
            raise ValueError(f"{where}{wrong[0]}: expected a size, got {sizes[wrong[0]]}")
        return cls(**sizes)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or no object.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path}: expected an object, got {type(given).__name__} {given!r:.100}")
    return given


def take(given: Mapping[str, Any], key: str, kind: type, where: str, default: Any = REQUIRED) -> Any:
    """A value of a JSON object.

    Args:
        given: the object.
        key: of the value.
        kind: int, float, bool, str, list or dict.
        where: stands before the key in messages.
        default: taken where the key is missing or null; without one that is an error.

    Raises:
        ValueError: it is missing, or of another kind.
    """
    value: Any = given.get(key)
    if value is None and default is not REQUIRED:
        return default
    is_kind = isinstance(value, int | float if kind is float else kind)
    is_kind &= kind is bool or not isinstance(value, bool)
    if not is_kind or (kind is float and not isfinite(value)):
        found = "nothing" if key not in given else f"{value!r:.100}"
        raise ValueError(f"{where}{key}: expected {WORDS[kind]}, got {found}")
    return value


def read_options(schema: type[Schema], values: Mapping[str, Any], where: str) -> Schema:
    """A dataclass of options from a JSON object, every value held to its type and range.

    Raises:
        ValueError: names key, what was expected and what came.
    """
    given = dict(values)
    refuse_unknown(schema, given, where.rstrip(": "))
    return build(schema, {**defaults_of(schema), **given}, lambda key: where)


def read_prune_options(values: Mapping[str, Any], where: str) -> PruneOptions:
    """The pruning options that parts travel with; ValueError as of `read_options`, and for counts of one batch."""
    given = dict(values)
    if isinstance(given.get("num_keep"), list):
        raise ValueError(f"{where}num_keep: counts belong to one batch and cannot travel with trained parts")
    num_keep = take(given, "num_keep", int, where, None)
    given.pop("num_keep", None)
    options = read_options(PruneConfig, given, where)
    try:
        return PruneOptions(**{**vars(options), "anchors": tuple(options.anchors), "num_keep": num_keep})
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error


def check_weights(
    weights: Mapping[str, Tensor], shape: BaseShape, glimpse: GlimpseConfig, vip: VIPConfig, where: str
) -> None:
    """Refuses what could not be loaded or would not work: other names or shapes, whole numbers, NaN and infinity.

    Args:
        weights: under our names.
        shape: of the base that they are for.
        glimpse, vip: what they belong to.
        where: stands before the names in messages.

    Raises:
        ValueError: names the tensor, what was expected and what came.
    """
    try:
        with torch.device("meta"):
            expected = GlimpsePruner.build(shape, glimpse, vip).state_dict()
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error
    for name in sorted({*weights, *expected}):
        if name not in weights:
            raise ValueError(f"{where}{name}: expected a tensor {list(expected[name].shape)}, got nothing")
        if name not in expected:
            raise ValueError(f"{where}{name}: the settings beside it have no such tensor")
        found = weights[name]
        if not isinstance(found, Tensor) or not found.is_floating_point():
            kind = found.dtype if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"{where}{name}: expected a tensor of floating point numbers, got {kind}")
        if found.shape != expected[name].shape:
            raise ValueError(f"{where}{name}: expected {list(expected[name].shape)}, got {list(found.shape)}")
        if not found.isfinite().all():
            raise ValueError(f"{where}{name}: {int((~found.isfinite()).sum())} of its numbers are not finite")
