"""Imports point downward only, and rooms of one layer do not import each other (CONTRIBUTING: the house)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = [
    {"types", "boxes", "version", "cli", "embedded"},
    {"config", "modules", "selection", "measure"},
    {"backbones"},
    {"pruners"},
    {"engine", "formats"},
    {"model"},
    {"loading"},
    {"runs"},
    {"data", "metrics"},
    {"training", "eval", "embedded/making"},
    {"bench", "convert"},
]
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a path below gp/, or of a module's name behind `gp.`, in parts."""
    return "/".join(parts[:2]) if "/".join(parts[:2]) in LAYER_OF else parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of gp that a file imports, wherever in the file."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    rooms = {room_of(tuple(name.split(".")[1:])) for name in modules if name.startswith("gp.")}
    return rooms & LAYER_OF.keys()  # others are names of the package itself, such as gp.from_pretrained


FILES = sorted(p for p in (ROOT / "gp").rglob("*.py") if p != ROOT / "gp" / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path):
    room = room_of(path.relative_to(ROOT / "gp").parts)
    assert room in LAYER_OF, f"{room} has no layer: add it to LAYERS and to CONTRIBUTING.md"
    above = sorted(other for other in imported_rooms(path) - {room} if LAYER_OF[other] >= LAYER_OF[room])
    assert not above, f"{path.relative_to(ROOT)} (layer {LAYER_OF[room]}) imports gp.{above[0]} of no lower layer"


def test_no_file_is_a_warehouse():
    """STYLE: files under about 300 lines; 450 is where a wall must move."""
    long = {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 450}
    assert not long
