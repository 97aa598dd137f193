"""The README's promises: its example prints what it says, and the files and options that it names exist."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from gp.backbones import FAMILIES
from gp.config import load_config
from gp.pruners import METHODS
from gp.runs.sweep import members_of

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_offline_example_prints_what_it_says():
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    promised = re.search(r"It prints `(.*?)`", README)[1]
    assert len(example.strip().splitlines()) <= 8
    run = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == promised


def test_every_linked_file_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 15
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_table_of_methods_is_what_the_registry_says():
    tables = runpy.run_path(str(ROOT / "docs/make_tables.py"))
    assert tables["with_tables"](README) == README, "run: python docs/make_tables.py"
    rows = re.findall(r"^\| `(\w+)` \|", README.partition("## Methods")[2], re.MULTILINE)
    assert rows == list(METHODS)


def test_every_family_is_in_the_table_with_its_config():
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|[^|]*\|[^|]*\|$", README, re.MULTILINE))
    assert rows.keys() == FAMILIES.keys()
    for family, cell in rows.items():
        configs = re.findall(r"`(configs/[^`]+)`", cell)
        assert configs, family
        for path in configs:
            load_config(ROOT / path)


def test_every_command_line_of_training_is_accepted():
    commands = re.findall(r"^ {4}.*python train\.py\s+--config (\S+)([^#\n]*)", README, re.MULTILINE)
    assert len(commands) > 3
    for path, overrides in commands:
        for member in members_of(overrides.split()):
            load_config(ROOT / path, member.overrides)


PROGRAMS = ("train.py", "evaluate.py", "-m gp.bench", "-m gp.convert", "-m gp.doctor")
SHARD_PROGRAMS = ("shards/build_tiny.py", "shards/build.py", "shards/check.py")


@pytest.mark.parametrize("program", [*PROGRAMS, *SHARD_PROGRAMS])
def test_every_program_explains_itself(program):
    run = subprocess.run(
        [sys.executable, *program.split(), "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0 and "usage" in run.stdout
