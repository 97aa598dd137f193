"""A folder as a downloaded repository in the cache of the hub's client."""

from __future__ import annotations

import shutil
from pathlib import Path


def put_in_cache(cache: Path, repo: str, files: Path) -> None:
    """As the hub's client lays a downloaded repository down."""
    folder, commit = cache / f"models--{repo.replace('/', '--')}", "0" * 40
    shutil.copytree(files, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    (folder / "refs" / "v1").write_text(commit)
