"""Place and config of a base that is not loaded yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class BaseSource:
    """Place and `config.json` of a base, enough to load its model and its processor.

    Args:
        place: hub id or folder.
        revision: branch, tag or commit of the hub id; None: the default branch.
        config: its `config.json`.
    """

    place: str | Path
    revision: str | None
    config: Mapping[str, Any]
