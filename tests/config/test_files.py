"""Configs by name: a path wins, a name finds what comes with gp, anything else is named with what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gp.config import load_config
from gp.config.files import config_folder, config_names, find_config

ROOT = Path(__file__).resolve().parents[2]


def test_a_name_is_the_config_that_comes_with_gp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("tiny") == ROOT / "configs/tiny.yaml"
    assert load_config("tiny") == load_config(ROOT / "configs/tiny.yaml")
    assert config_names() == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


def test_a_path_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").write_text("a: 1\n")
    assert find_config("tiny") == Path("tiny")
    with pytest.raises(ValueError, match="config tiny: unknown key 'a'"):
        load_config("tiny")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("tyny", r"config tyny: no such file, and not one of .*: llava13b, .*tiny_zoom, .*; the nearest one is 'tiny'"),
        ("configs/tiny.yaml", r"config configs/tiny\.yaml: no such file; --config tiny is the one that comes with gp"),
        ("mine.yaml", r"config mine\.yaml: no such file$"),
        ("some/tiny", r"config some/tiny: no such file$"),
    ],
)
def test_what_there_is_not(name, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=line):
        find_config(name)


def test_one_config_by_name_and_path_is_given_twice():
    with pytest.raises(ValueError, match=r"tiny\.yaml: given twice"):
        load_config(["tiny", ROOT / "configs/tiny.yaml"])


def test_an_installed_package_has_them_inside(tmp_path):
    (tmp_path / "gp/configs").mkdir(parents=True)
    assert config_folder(tmp_path / "gp") == tmp_path / "gp/configs"
    (tmp_path / "gp/configs").rmdir()
    assert config_folder(tmp_path / "gp") == tmp_path / "configs"
