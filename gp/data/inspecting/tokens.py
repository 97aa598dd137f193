"""The number of visual tokens that an image becomes, without loading a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gp.backbones.qwen_size import resized
from gp.config.schema import ModelConfig
from gp.data.inspecting.options import CheckConfig
from gp.embedded import EMBEDDED_BASES

LLAVA_TOKENS = 576  # 24 x 24 patches of a 336 px square, whatever the image
# preprocessor_config.json of the Qwen2.5-VL models
QWEN = {"patch_size": 14, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": 12_845_056}
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")

TokenCounter = Callable[[tuple[int, int]], int]


def token_counter(config: ModelConfig | CheckConfig | None = None) -> TokenCounter:
    """The number of visual tokens of an image of (width, height) pixels.

    Args:
        config: `base` and the pixel budget; None: Qwen2.5-VL with its own budget. A hub id is not looked up: one with
            "llava" in it is LLaVA-1.5, any other is taken for Qwen2.5-VL.
    """
    base = config.base if config is not None else None
    if base is not None and "llava" in base.lower():
        return lambda size: LLAVA_TOKENS
    known = {**QWEN, **(_processor_settings(base) if base is not None else {})}
    given = {name: getattr(config, name, None) for name in ("min_pixels", "max_pixels")}
    known.update({name: value for name, value in given.items() if value is not None})
    factor = known["patch_size"] * known["merge_size"]

    def count(size: tuple[int, int]) -> int:
        width, height = resized(size, factor, known["min_pixels"], known["max_pixels"])
        return height // factor * (width // factor)

    return count


def _processor_settings(base: str) -> dict[str, int]:
    """Settings from the image processor's file of a local base, under the names of `QWEN`."""
    folder = EMBEDDED_BASES.get(base, Path(base))
    file = next((folder / name for name in PROCESSOR_FILES if (folder / name).is_file()), None)
    if file is None:
        return {}
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    settings = settings.get("image_processor", settings)
    size = settings.get("size", {})
    areas = {"min_pixels": size.get("shortest_edge"), "max_pixels": size.get("longest_edge")}
    found = {**areas, **{name: settings[name] for name in QWEN if name in settings}}
    return {name: value for name, value in found.items() if value is not None}
