"""The maps in CONTRIBUTING and docs: every symbol is in the file that it links to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "streaming.md"]
WAY = ["shard", "sample", "batch", "prefill", "glimpse", "selection", "compaction", "decode"]


def links(page: Path) -> list[tuple[str, Path]]:
    """Symbol and file of every link whose text is a symbol: [`Class.method`](gp/file.py)."""
    found = re.findall(r"\[`([A-Za-z_][\w.]*)`\]\(([\w./]+\.py)\)", page.read_text())
    return [(symbol, page.parent / file) for symbol, file in found if not symbol.endswith(".py")]


def names_in(body: list[ast.stmt], prefix: str = "") -> set[str]:
    """Dotted names that a module or class body defines."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            names |= names_in(node.body, f"{prefix}{node.name}.")
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {prefix + target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_symbol_is_in_its_file(page):
    wrong = [
        f"{file.relative_to(ROOT)} has no {symbol}"
        for symbol, file in links(page)
        if not file.is_file() or symbol not in names_in(ast.parse(file.read_text()).body)
    ]
    assert links(page) and not wrong


def test_the_map_shows_the_whole_way_in_its_order():
    rows = re.findall(r"^\| ([\w ]+) \| \[`", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert [step for step in rows if step in WAY][: len(WAY)] == WAY
