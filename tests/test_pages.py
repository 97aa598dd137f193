"""The pages below docs/: all are in the site's menu, links lead somewhere, and samples print what they say.

The samples of docs/library.md are in `test_library_page.py`; `.ci/run site` checks links with their anchors.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml

from gp.backbones.qwen2_5_vl import Qwen2_5_VL
from tests.support.tiny_models import tiny_inputs, tiny_qwen

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
PRINTS = re.compile(r"^ *(?:.*\bprint\(.*\)  # |# )(.*)$", re.MULTILINE)


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name functions of libraries that need not be here."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def menu_of(entries) -> list[str]:
    """Pages of a menu of mkdocs.yml."""
    if isinstance(entries, str):
        return [entries]
    parts = entries.values() if isinstance(entries, dict) else entries
    return [page for part in parts for page in menu_of(part)]


def samples_of(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / name).read_text(), re.DOTALL | re.MULTILINE)


def test_every_page_is_in_the_menu_once():
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)
    own = [page for page in menu_of(settings["nav"]) if not page.startswith("source/")]
    assert sorted(own) == [page.name for page in PAGES]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "notebooks/README.md"], ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_numbered_points_go_on_behind_four_spaces(page):
    """The site's Markdown takes less for the end of the list, and a command in it for prose."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    points = re.findall(r"^\d+\. .*\n(?:(?: .*)?\n)*", text, re.MULTILINE)
    assert not [
        found for point in points for found in re.findall(r"^ {1,3}\S.*|(?<=\n\n) {5,7}\S.*", point, re.MULTILINE)
    ]


@pytest.mark.parametrize(("name", "count"), [("start.md", 2), ("your_model.md", 1)])
def test_samples_print_what_they_say(name, count, tmp_path, monkeypatch):
    (tmp_path / "docs").symlink_to(DOCS)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    samples = samples_of(name)
    assert len(samples) == count
    for sample in samples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(sample, name, "exec"), names)
        assert printed.getvalue().splitlines() == PRINTS.findall(sample)


def test_the_samples_on_backbones_check_a_model():
    """The class of the first sample is a backbone; the check of the second one passes, and finds a wrong one."""
    names: dict = {}
    for sample in samples_of("backbones.md"):
        exec(compile(sample, "backbones.md", "exec"), names)
    assert issubclass(names["MyVL"], Qwen2_5_VL) and names["MyVL"].model_type == "my_vl"
    model, inputs = tiny_qwen(), tiny_inputs([([(5, 5)], 4)])
    kept = names["check"](model, inputs)
    assert len(kept) == 8 and all(0 < number <= 25 for (number,) in kept.values())


def test_the_check_finds_a_backbone_that_is_wrong(monkeypatch):
    names: dict = {}
    exec(compile(samples_of("backbones.md")[1], "backbones.md", "exec"), names)
    right = Qwen2_5_VL.positions
    monkeypatch.setattr(Qwen2_5_VL, "positions", lambda self, *inputs: right(self, *inputs) * 3)
    with pytest.raises(AssertionError):
        names["check"](tiny_qwen(), tiny_inputs([([(5, 5)], 4)]))
