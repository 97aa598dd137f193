"""What pip installs: commands, configs and weights, and a description that needs no file beside it.

`.ci/run wheel` installs a real wheel into an environment of its own, trains from it and asks its demo.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import gp
from gp import __main__ as every
from gp import cli

ROOT = Path(__file__).resolve().parent.parent
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")
CONSOLE = [
    EntryPoint(*map(str.strip, line.split("=")), "console_scripts")
    for line in SETUP["options.entry_points"]["console_scripts"].strip().splitlines()
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder as pip fills site-packages, and beside it the metadata."""
    pytest.importorskip("setuptools", reason="builds the package")
    folder = tmp_path_factory.mktemp("built")
    steps = ["egg_info", "--egg-base", str(folder), "build_py", "--build-lib", str(folder / "site-packages")]
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", *steps], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_it_has_configs_types_and_weights(built):
    package = built / "site-packages/gp"
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")}
    assert configs == {str(path.relative_to(package)) for path in (package / "configs").rglob("*.yaml")}
    for name in ("py.typed", "__main__.py", "embedded/base/model.safetensors", "embedded/material/digits.npz"):
        assert (package / name).is_file(), name
    assert [path.name for path in (built / "site-packages").iterdir()] == ["gp"]


def test_it_finds_its_configs_by_name_from_an_empty_folder(built, tmp_path):
    code = "from gp.config.files import find_config; print(find_config('tiny'))"
    variables = {**os.environ, "PYTHONPATH": str(built / "site-packages")}
    run = [sys.executable, "-c", code]
    found = subprocess.run(run, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True).stdout
    assert found.strip() == str(built / "site-packages/gp/configs/tiny.yaml")


def test_its_description_leads_nowhere_but_to_addresses(built):
    text = (built / "glimpse_prune.egg-info/PKG-INFO").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 30 and all(link.startswith(("https://", "#")) for link in links)
    assert any(re.search(rf"/v{re.escape(gp.__version__)}/docs/images/kept\.jpg$", link) for link in links)
    assert re.search(r"^License-Expression: Apache-2\.0$|^License: Apache-2\.0$", text, re.MULTILINE)
    assert "Author: The gp authors" in text


def test_the_commands_are_those_that_were_promised():
    assert {one.name for one in CONSOLE} == {"gp-train", "gp-evaluate", "gp-shards", "gp-bench", "gp-demo"}


@pytest.mark.parametrize("script", CONSOLE, ids=lambda one: one.name)
def test_every_console_script_explains_itself(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"/venv/bin/{script.name}", "--help"])
    with pytest.raises(SystemExit) as stop:
        script.load()()
    printed = capsys.readouterr().out
    assert stop.value.code == 0 and "usage: " in printed
    assert "python train.py" not in printed and "python evaluate.py" not in printed


@pytest.mark.parametrize("name", every.COMMANDS)
def test_python_m_gp_runs_every_command(name, capsys):
    assert callable(import_module(every.COMMANDS[name]).main)
    assert re.search(rf"^ *{name} ", every.__doc__, re.MULTILINE)
    with pytest.raises(SystemExit) as stop:
        every.main([name, "--help"])
    assert stop.value.code == 0 and "usage: " in capsys.readouterr().out


def test_without_a_command_they_are_listed(capsys):
    assert every.main([]) == 0 and "gp-train" in capsys.readouterr().out


def test_version_citation_and_changelog_agree():
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == gp.__version__
    assert re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == gp.__version__
    assert f"version = {{{gp.__version__}}}" in (ROOT / "README.md").read_text()


def test_every_address_is_of_one_repository():
    """So that a move is one search; others are of papers and tools."""
    url = SETUP["metadata"]["url"]
    pages = ["CITATION.cff", "README.md", "setup.cfg", ".github/ISSUE_TEMPLATE/config.yml"]
    found = {
        one for page in pages for one in re.findall(r"https://github\.com/[\w-]+/[\w-]+", (ROOT / page).read_text())
    }
    assert found == {url}


def test_the_words_of_installed_commands_are_their_names():
    names = {one.name for one in CONSOLE}
    assert {words.split()[0] for words in cli.INSTALLED.values() if words.startswith(cli.CONSOLE)} <= names
