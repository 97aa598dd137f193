"""Parts of a report that can be written anew without the rest, each between two comments, in Markdown and in HTML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from gp.runs.writing import write_text


def marked(name: str, text: str) -> str:
    """A part with its marks; empty ones have them, too."""
    begin, end = _marks(name)
    return "\n\n".join([begin, *([text] if text else []), end])


def renew(path: Path, parts: Mapping[str, str]) -> bool:
    """Puts new parts in place of those of their names.

    Args:
        path: of the report.
        parts: name -> text.

    Returns:
        False, and nothing is changed, if the report is not there or lacks one of the parts.
    """
    if not path.is_file():
        return False
    content = path.read_text(encoding="utf-8")
    for name, text in parts.items():
        begin, end = _marks(name)
        before, found, rest = content.partition(begin)
        _, closed, behind = rest.partition(end)
        if not found or not closed:
            return False
        content = before + marked(name, text) + behind
    write_text(path, content)
    return True


def _marks(name: str) -> tuple[str, str]:
    plain = quote(name)  # nothing in it can end a comment
    return f"<!-- begin {plain} -->", f"<!-- end {plain} -->"
