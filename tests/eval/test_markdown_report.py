"""The Markdown report: what it names, and its pictures."""

from __future__ import annotations

import json
import re

from PIL import Image


def test_report(evaluated):
    text = (evaluated / "report.md").read_text()
    words = ("none", "glimpse", "random", "oracle", "as glimpse", "max_new_tokens", "python ", "torch 2", "| 50 % |")
    for word in words:
        assert word in text, word
    pictures = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert "## Left out" not in text
    shown = sum(len(one["shown"]) for one in json.loads((evaluated / "failures.json").read_text()))
    assert len(pictures) == 3 + 2 * 3 + shown  # figures, two examples under three methods, changed answers
    for picture in pictures:
        with Image.open(evaluated / picture) as image:
            image.verify()
