"""Place and config of a base that is not loaded yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class BaseSource:
    """Place and `config.json` of a base, enough to load its model and its processor.

    Args:
        place: hub id or folder.
        revision: branch, tag or commit of the hub id; None: the default branch.
        config: its `config.json`.
        hub: how files are fetched, the same for all of them: `cache_dir`, `token`, `local_files_only`,
            `force_download`, as in transformers.
    """

    place: str | Path
    revision: str | None
    config: Mapping[str, Any]
    hub: Mapping[str, Any] = field(default_factory=dict)
