"""Runs a bench as a user would, in this process, on the tiny preset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gp.bench.__main__ import main


def run_bench(folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The JSON and the markdown that it writes."""
    files = folder / "out.json", folder / "out.md"
    outputs = ["--json", str(files[0]), "--markdown", str(files[1])]
    assert main([*arguments, *outputs]) == 0
    return json.loads(files[0].read_text()), files[1].read_text()


def assert_spread(spread: dict[str, float]) -> None:
    assert 0 < spread["low"] <= spread["median"] <= spread["high"]
