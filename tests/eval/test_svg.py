"""Figures inside a page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gp.eval.figures import draw
from gp.eval.svg import inline_svg


@pytest.fixture(scope="module")
def rows(evaluated: Path) -> list[dict]:
    return json.loads((evaluated / "summary.json").read_text())


def test_figures_of_two_splits_do_not_share_ids(rows):
    """Or a reference of the one would find the other's part."""
    names = [
        set(re.findall(r' id="([^"]+)"', inline_svg(*draw(rows), name=split, label="a curve")))
        for split in ("test", "test_hard")
    ]
    assert names[0] and not names[0] & names[1]
