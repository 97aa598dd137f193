"""Imports point downward only, and rooms on one floor do not import each other (CONTRIBUTING: the house)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = [
    {"modules", "selection", "boxes", "config", "types", "version", "window", "embedded"},
    {"backbones"},
    {"pruners"},
    {
        "model",
        "prefill",
        "compaction",
        "teacher_forcing",
        "generation",
        "checkpoint",
        "reference_format",
        "publish",
        "convert",
    },
    {"data", "metrics"},
    {"training", "eval"},
    {"bench", "demo", "integrations"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ONE_BUILDING = {0, 3}  # floors whose files are single ideas that use each other


def imported_rooms(path: Path) -> set[str]:
    """Rooms of gp that a file imports, wherever in the file."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"gp.{alias.name}" for alias in node.names] if node.module == "gp" else [node.module]
        rooms |= {name.split(".")[1] for name in names if name.startswith("gp.")}
    return rooms


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "gp").parts[0].removesuffix(".py")


FILES = sorted(p for p in (ROOT / "gp").rglob("*.py") if p.parent != ROOT / "gp" or p.name != "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path):
    room = room_of(path)
    assert room in FLOOR_OF, f"{room} has no floor: add it to FLOORS and to CONTRIBUTING.md"
    for other in imported_rooms(path) - {room}:
        if other not in FLOOR_OF:
            continue  # a name of the package itself, such as gp.from_pretrained
        same = FLOOR_OF[other] == FLOOR_OF[room]
        assert FLOOR_OF[other] < FLOOR_OF[room] or (same and FLOOR_OF[room] in ONE_BUILDING), (
            f"{path.relative_to(ROOT)} (floor {FLOOR_OF[room]}) imports gp.{other} (floor {FLOOR_OF[other]})"
        )


def test_no_file_is_a_warehouse():
    """STYLE: files under about 300 lines; 450 is where a wall must move."""
    long = {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 450}
    assert not long
