"""Tables as LaTeX that a paper can input: booktabs, with every character of a name as it is."""

from __future__ import annotations

from collections.abc import Sequence

HEAD = "% needs \\usepackage{booktabs}"
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"\textpm{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def escaped(text: str) -> str:
    """Text that LaTeX shows as it is, on one line.

    >>> escaped("50 % of zoom_in {a}")
    '50 \\\\% of zoom\\\\_in \\\\{a\\\\}'
    """
    return " ".join("".join(SPECIAL.get(character, character) for character in text).split())


def booktabs(
    heads: Sequence[str], lines: Sequence[Sequence[str]], caption: str, num_text_columns: int, last_apart: bool = False
) -> str:
    """A `table` with rules of booktabs.

    Args:
        heads: of the columns.
        lines: cells, as many as heads; all texts are escaped here.
        caption: above the table.
        num_text_columns: the first ones, aligned left; the others right.
        last_apart: whether a rule parts the last line from the others, as a mean.
    """
    columns = "l" * num_text_columns + "r" * (len(heads) - num_text_columns)
    rows = [_row(line) for line in lines]
    if last_apart and len(rows) > 1:
        rows.insert(-1, r"\midrule")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{escaped(caption)}}}",
            f"\\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _row(heads),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def document(tables: Sequence[str]) -> str:
    """Several tables as the content of a file for \\input."""
    return "\n\n".join([HEAD, *tables]) + "\n"


def _row(cells: Sequence[str]) -> str:
    # a bracket behind \\ would be read as its argument, so that the first cell may not begin with one
    texts = [f"{{}}{text}" if text.startswith("[") else text for text in map(escaped, cells)]
    return " & ".join(texts) + r" \\"
