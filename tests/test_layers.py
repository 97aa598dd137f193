"""Imports point downward only, and rooms of one layer do not import each other (CONTRIBUTING: the house)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = [
    {
        "types",
        "boxes",
        "pictures",
        "cli",
        "flags",
        "stages",
        "progress",
        "version",
        "window",
        "embedded",
        "plugins",
        "allocator",
    },
    {"config", "modules", "selection", "measure", "painting", "images"},
    {"runs", "answer"},
    {"backbones"},
    {"pruners"},
    {"engine", "formats", "calls", "asking"},
    {"chat"},
    {"model"},
    {"loading", "wrapping"},
    {"data", "metrics", "judge", "serve"},
    {"training", "eval", "front"},
    {"integrations"},
    {"bench", "demo", "doctor", "convert", "sweep", "embedded/making"},
    {"commands"},
    {"__main__"},
]
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a path below gp/, or of a module's name behind `gp.`, in parts."""
    return "/".join(parts[:2]) if "/".join(parts[:2]) in LAYER_OF else parts[0].removesuffix(".py")


def imported_modules(path: Path) -> list[str]:
    """Dotted names that a file imports, wherever in the file, with what it takes from a module behind it."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    return modules


def imported_rooms(path: Path) -> set[str]:
    """Rooms of gp that a file imports."""
    modules = imported_modules(path)
    rooms = {room_of(tuple(name.split(".")[1:])) for name in modules if name.startswith("gp.")}
    return rooms & LAYER_OF.keys()  # others are names of the package itself, such as gp.from_pretrained


FILES = sorted(p for p in (ROOT / "gp").rglob("*.py") if p != ROOT / "gp" / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path):
    room = room_of(path.relative_to(ROOT / "gp").parts)
    assert room in LAYER_OF, f"{room} has no layer: add it to LAYERS and to CONTRIBUTING.md"
    above = sorted(other for other in imported_rooms(path) - {room} if LAYER_OF[other] >= LAYER_OF[room])
    assert not above, f"{path.relative_to(ROOT)} (layer {LAYER_OF[room]}) imports gp.{above[0]} of no lower layer"


MODEL_ROOMS = {"backbones", "embedded/making"}  # the only ones that know transformers' models and configs
CACHE_ROOMS = MODEL_ROOMS | {"engine"}
TYPES = {"PreTrainedModel", "PretrainedConfig"}  # of annotations, and read by name
CACHES = re.compile(r"transformers(\.(cache_utils|masking_utils|modeling_outputs)\b|\.(DynamicCache|GenerationMixin)$)")


def names_of_transformers(path: Path) -> set[str]:
    """Dotted names that a file takes from transformers, by import or through the imported module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    return {name for name in names if name.startswith("transformers.")}


def is_model(name: str) -> bool:
    last = name.rpartition(".")[2]
    if name.startswith("transformers.models."):
        return True
    return last not in TYPES and (last.endswith(("ForConditionalGeneration", "Model", "Config")) or "AutoModel" in last)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_backbones_know_transformers_models(path):
    room, names = room_of(path.relative_to(ROOT / "gp").parts), names_of_transformers(path)
    models = set() if room in MODEL_ROOMS else {name for name in names if is_model(name)}
    caches = set() if room in CACHE_ROOMS else {name for name in names if CACHES.match(name)}
    assert not models | caches, f"{path.relative_to(ROOT)} uses {sorted(models | caches)}: add a door to gp/backbones"


def test_what_counts_as_a_model():
    models = (
        "AutoModelForImageTextToText",
        "LlavaConfig",
        "CLIPVisionModel",
        "models.qwen2_vl.modeling_qwen2_vl.rotate",
    )
    assert all(is_model(f"transformers.{name}") for name in (*models, "Qwen2_5_VLForConditionalGeneration"))
    assert not any(is_model(f"transformers.{name}") for name in (*TYPES, "ProcessorMixin", "utils.ModelOutput"))


def test_no_file_is_a_warehouse():
    """Files stay under about 300 lines; 450 is where a wall must move."""
    long = {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 450}
    assert not long


def test_tests_do_not_import_from_tests():
    """What several of them need is in tests/support/."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for name in imported_modules(path)
        if re.match(r"tests\.(\w+\.)*(test_|conftest\b)", name)
    ]
    assert not wrong
