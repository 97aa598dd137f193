"""The commit of this code, found without importing any library."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def code_commit() -> dict[str, Any]:
    """`commit` of this code (None outside its git repository), and `dirty`: whether files were changed since."""
    package = Path(__file__).resolve().parents[1]
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None
    commit = _git(package, "rev-parse", "HEAD") if tracked else None
    changed = bool(_git(package, "status", "--porcelain", "--untracked-files=no")) if commit else None
    return {"commit": commit, "dirty": changed}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command; None if it fails or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
