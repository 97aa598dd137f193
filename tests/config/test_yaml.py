"""Files that are no config: one line with file and line, in every command that reads one."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import evaluate
import train

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "train": lambda path: train.main(["--config", path]),
    "evaluate": lambda path: evaluate.main(["ckpt=tiny", "--config", path]),
    "build": lambda path: shards_main("build")(["--config", path]),
    "check": lambda path: shards_main("check")(["x.tar", "--config", path]),
}
WRONG = {
    "a tab": (b"name: a\n\tb: 1\n", ", line 2: not YAML: "),
    "a key that comes twice": (b"name: a\nseed: 1\nname: b\n", ", line 3: not YAML: found duplicate key"),
    "a bracket left open": (b"name: [a\n", "not YAML: "),
    "bytes": (b"name: a\nseed: \xff\n", ", line 2: expected text in UTF-8, got byte 0xff"),
    "nothing": (b"", ", line 1: expected keys and values, got an empty file"),
    "a comment only": (b"# name: a\n", "got an empty file"),
    "a list": (b"- name\n- a\n", ", line 1: expected keys and values, got a list"),
    "a word": (b"hello\n", "unknown key 'hello'"),
    "a number": (b"3\n", "got '3'"),
    "a zero byte": (b"name: a\0b\n", "not YAML: "),
    "an object": (b"name: !!python/object:os.system {}\n", ", line 1: not YAML: "),
    "a list in itself": (b"name: &a [*a]\n", "not YAML: "),
}


def shards_main(name: str):
    return runpy.run_path(str(ROOT / "shards" / f"{name}.py"))["main"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", WRONG)
def test_one_line_and_status_2(tmp_path, kind, command, capsys):
    content, expected = WRONG[kind]
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    assert COMMANDS[command](str(path)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"error: config {path}") and expected in lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_file(tmp_path, command, capsys):
    path = tmp_path / "none.yaml"
    assert COMMANDS[command](str(path)) == 2
    assert capsys.readouterr().err == f"error: config {path}: no such file\n"
