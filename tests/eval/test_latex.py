"""LaTeX: names come out as they are, and every line has the cells of its head."""

from __future__ import annotations

import re

import pytest

from gp.eval.latex import booktabs, document, escaped

NASTY = r"50 % of a_b & {c} #1 $x$ \ ~ ^ <m> | \"q\" ±"


def shown(text: str) -> str:
    """What LaTeX prints of a text, by its rules: commands of symbols, and one letter behind a backslash."""
    symbols = {
        "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">",
        "textbar": "|", "textquotedbl": '"', "textpm": "±",
    }  # fmt: skip
    out, place = "", 0
    while place < len(text):
        if command := re.compile(r"\\([a-zA-Z]+)\{\}").match(text, place):
            out, place = out + symbols[command[1]], command.end()
        elif text[place] == "\\":
            assert text[place + 1] in "&%$#_{}", text[place:]
            out, place = out + text[place + 1], place + 2
        else:
            assert text[place] not in "&%$#_{}~^", f"{text[place]} means something to LaTeX"
            out, place = out + text[place], place + 1
    return out


def test_any_name_is_shown_as_it_is():
    assert shown(escaped(NASTY)) == NASTY
    assert escaped("two\nlines") == "two lines"


def test_a_table():
    text = booktabs(["a_set", "score %"], [["[one]", "50.0"], ["mean", "5.0"]], "50 %", 1, last_apart=True)
    assert text.splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{50 \%}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a\_set & score \% \\",
        r"\midrule",
        r"{}[one] & 50.0 \\",
        r"\midrule",
        r"mean & 5.0 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    assert document([text, text]).count(r"\begin{table}") == 2 and "booktabs" in document([]).splitlines()[0]


@pytest.mark.parametrize("name", ["", "plain"])
def test_plain_text_stays(name):
    assert escaped(name) == name
