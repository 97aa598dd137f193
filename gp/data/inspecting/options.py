"""Every option of looking at shards, with its default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from gp.config.literal import parse_with_paths
from gp.config.load import COMMAND_LINE, load_config, merge_options
from gp.config.option import option
from gp.config.reference import describe_schema
from gp.config.schema import FROM_1, TrainConfig


@dataclass
class CheckConfig:
    """All settings of `shards/check.py`."""

    shards: list[str] = option(MISSING, "folders of shards, shards, braces or globs in quotes; a list", length=FROM_1)
    base: str | None = option(
        None, "whose visual tokens are counted: a folder, or a name with llava in it; null: --config's, or Qwen2.5-VL"
    )
    min_pixels: int | None = option(None, "images are enlarged to at least this area; null: as of base", within=FROM_1)
    max_pixels: int | None = option(None, "images are reduced to at most this area; null: as of base", within=FROM_1)
    sheet: str | None = option(None, "write a contact sheet here, .png or .jpg: a draw of the images with their boxes")
    sheet_images: int = option(20, "images on it", within=FROM_1)


def load_check_config(path: str | Path | None, overrides: Sequence[str], shards: Sequence[str] = ()) -> CheckConfig:
    """`key=value` overrides, and the `model` section of a training config for what they leave open.

    Args:
        path: of the training config; None: none.
        overrides: options.
        shards: more of the option `shards`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown or missing key, a wrong type, a value out of range, or a config of another task.
    """
    given: dict[str, dict[str, Any]] = {}
    if path is not None:
        config = load_config(path)
        if not isinstance(config, TrainConfig):
            raise ValueError(f"config {path}: expected task glimpse, got {config.task}")
        model = config.model
        given[f"config {path}"] = {
            "base": model.base, "min_pixels": model.min_pixels, "max_pixels": model.max_pixels
        }  # fmt: skip
    given[COMMAND_LINE] = parse_with_paths(overrides, ("shards", "base", "sheet"))
    named = given[COMMAND_LINE].get("shards", [])
    if named or shards:
        given[COMMAND_LINE]["shards"] = [*shards, *([named] if isinstance(named, str) else named)]
    return merge_options(CheckConfig, given)


def describe_options() -> str:
    """One line per option, for `--help`."""
    return describe_schema(CheckConfig)
