"""Names of files on the command line: taken letter by letter, where YAML would see numbers, comments or mappings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from gp.config.load import parse_overrides


def parse_with_paths(overrides: Sequence[str], paths: Collection[str]) -> dict[str, Any]:
    """`key=value` overrides -> values, those of `paths` as they were typed; a list in brackets stays one.

    Args:
        overrides: e.g. `["images=2024", "seed=3"]`.
        paths: keys whose values are names of files.

    Raises:
        ValueError: as of `parse_overrides`.
    """
    pairs = [text.partition("=") for text in overrides]
    typed = {key: value for key, _, value in pairs if key in paths and value and not value.lstrip().startswith("[")}
    rest = [text for text, (key, _, _) in zip(overrides, pairs, strict=True) if key not in typed]
    return {**parse_overrides(rest), **typed}
