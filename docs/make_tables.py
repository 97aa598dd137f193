"""Writes the tables that follow from the code into the documentation: the README's methods.

python docs/make_tables.py
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from gp.pruners import METHODS, Pruner

README = Path(__file__).resolve().parent.parent / "README.md"


def method_row(method: type[Pruner]) -> str:
    """Name, idea (the docstring's first paragraph), paper and file of a method."""
    idea = " ".join(inspect.getdoc(method).partition("\n\n")[0].split()).removesuffix(".")
    paper = f" ([paper](https://arxiv.org/abs/{method.paper}))" if method.paper else ""
    file = f"{method.__module__.replace('.', '/')}.py"
    return f"| `{method.name}` | {idea}{paper} | [`{file}`]({file}) |"


def with_tables(text: str) -> str:
    """The README's text with its tables as they should be.

    Raises:
        ValueError: no place for a table in it.
    """
    rows = ["| `pruner=` | idea | file |", "|---|---|---|", *map(method_row, METHODS.values())]
    start, end = "<!-- docs/make_tables.py: methods -->\n", "<!-- end -->"
    pattern = f"(?<={re.escape(start)}).*?(?={re.escape(end)})"
    table = "\n".join(rows) + "\n"
    written, count = re.subn(pattern, lambda found: table, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"README.md: expected one table between {start.strip()!r} and {end!r}, found {count}")
    return written


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
