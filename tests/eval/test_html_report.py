"""The HTML report: well formed, complete, and nothing in it comes from elsewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gp.eval.table import cells, columns_of

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Rows of tables, all attributes, titles inside figures; refuses tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.titles: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "title" and "svg" in self.open:
            self.titles.append("")

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        elif self.open and self.open[-1] == "title" and "svg" in self.open:
            self.titles[-1] += data


@pytest.fixture(scope="module")
def text(evaluated: Path) -> str:
    return (evaluated / "report.html").read_text()


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def rows(evaluated: Path) -> list[dict]:
    return json.loads((evaluated / "summary.json").read_text())


def test_the_table_has_each_row_and_what_it_is_sorted_by(page, rows):
    assert page.rows[: len(rows) + 1] == [[column.name for column in columns_of(rows)], *map(cells, rows)]
    values = [
        float(value) for tag, name, value in page.attributes if name == "data-value" and re.match(r"[\d.]", value)
    ]
    for row in rows:
        for key in ("cache_ratio", "compute_ratio", "answer_accuracy", "mask_iou", "kv_cache_mib"):
            assert row[key] in values, key


def test_every_point_of_the_figure_has_its_numbers(page, rows, evaluated):
    pruned = [row for row in rows if row["pruner"] != "none"]
    bins = json.loads((evaluated / "calibration.json").read_text())["test"]["tokens"]
    # in the second figure twice, and un-pruned ones as well; in the third one every bin with tokens
    assert len(page.titles) == len(pruned) + 2 * len(rows) + sum(map(bool, bins))
    for row in pruned:
        low, high = row["answer_accuracy_ci95"]
        numbers = f"{100 * row['answer_accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}] %"
        cache = f"cache {100 * row['cache_ratio']:.1f} %"
        assert [t for t in page.titles if t.startswith(f"{row['pruner']}, ") and numbers in t and cache in t]


def test_nothing_is_loaded_from_elsewhere(page, text, evaluated):
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert all(value.startswith("#") or (evaluated / value).is_file() for value in links)
    sources = [
        value
        for tag, name, value in page.attributes
        if tag != "a" and name in ("src", "href", "xlink:href", "srcset", "action")
    ]
    assert sources and all(value.startswith(("data:image/jpeg;base64,", "#")) for value in sources)
    shown = sum(len(one["shown"]) for one in json.loads((evaluated / "failures.json").read_text()))
    assert sum(value.startswith("data:") for value in sources) == 2 * 3 + shown  # two examples under three methods
    assert not re.search(r"url\((?!#)|@import|<link|<script src", text)
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_links_lead_to_what_is_there(page, evaluated):
    names = [value for tag, name, value in page.attributes if name == "id" and tag != "g"]
    inside = [value[1:] for tag, name, value in page.attributes if (tag, name) == ("a", "href") and value[0] == "#"]
    assert len(names) == len(set(names)) and "judge" not in names  # its link is hidden until there is one
    wanted = ("", "-figures", "-kinds", "-examples", "-changed")
    assert inside == ["judge", *(f"split-0{part}" for part in wanted), "settings"] and {*inside} - {*names} == {"judge"}
    files = {value for tag, name, value in page.attributes if (tag, name) == ("a", "href") and value[0] != "#"}
    curves = ("accuracy", "speed", "reliability")
    assert files == {f"figures/test-{curve}.{suffix}" for curve in curves for suffix in ("png", "pdf", "svg")}


def test_alternative_texts_say_what_is_seen(page, rows):
    of_pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert of_pictures
    for text in of_pictures:
        assert re.match(r"\w+ kept \d+ of \d+ visual tokens \(others are darkened\) and answered '.*' to '.+'", text)
    figures = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(figures) == 3 and all(" against " in text for text in figures)


def test_the_headline_has_the_figures_of_the_methods_own_decision(text, rows):
    (none,), (own,) = ([row for row in rows if row["pruner"] == name][:1] for name in ("none", "glimpse"))
    assert own["budget"] is None
    said = re.search('class="headline">([^<]*)<', text)[1]
    score, kept, full = (
        f"{100 * n:.1f} %" for n in (own["answer_accuracy"], own["keep_ratio"], none["answer_accuracy"])
    )
    assert f"glimpse own scores {score} with {kept} of the visual tokens" in said
    assert f"without pruning {full}" in said and f"{own['prefill_ratio']:.2f} of the un-pruned time" in said


def test_settings_command_and_legend_are_there(text):
    for word in (
        "max_new_tokens",
        "<code>python ",
        "bootstrap interval",
        "Stars: ",
        "questions a second",
        "of the evidence lost",
        "Kinds of questions",
        "ECE 0.",
        "evidence boxes outlined",
    ):
        assert word in text, word
    assert "Left out" not in text
