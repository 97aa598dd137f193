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
    given = dict.fromkeys(paths, None)
    for text in overrides:
        key, _, value = text.partition("=")
        if key in paths:  # the last one counts
            given[key] = value if value and not value.lstrip().startswith("[") else None
    typed = {key: value for key, value in given.items() if value is not None}
    rest = [text for text in overrides if text.partition("=")[0] not in typed]
    return {**parse_overrides(rest), **typed}
