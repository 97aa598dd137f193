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


def test_what_was_checked_is_said_in_the_same_words():
    said = re.search(r"\*\*What was checked on which weights\.\*\*.*?on micro models", README, re.DOTALL)[0]
    assert said in (ROOT / "docs/parity.md").read_text()


def test_the_table_of_gains_is_that_of_the_gpu_page():
    """Seconds and GiB of the box are milliseconds and MiB there."""
    page = (ROOT / "docs/gpu.md").read_text()
    numbers = {float(text.replace(",", "")) for text in re.findall(r"(?<=\| )[\d,]+(?:\.\d+)?(?= \|)", page)}
    box = README.partition("## When it pays, when not")[2].partition("\n\nAccuracy")[0]
    seconds, sizes = re.findall(r"(\d\.\d{3}) s", box), re.findall(r"(\d+\.\d\d) GiB", box)
    assert len(seconds) == len(sizes) == 6
    assert {float(text) for text in seconds} <= {round(number / 1000, 3) for number in numbers}
    assert {float(text) for text in sizes} <= {round(number / 1024, 2) for number in numbers}


def test_it_is_short():
    assert len(README.splitlines()) < 155


PROGRAMS = ("train.py", "evaluate.py", "-m gp", "-m gp.bench", "-m gp.convert", "-m gp.doctor")
SHARD_PROGRAMS = ("shards/build_tiny.py", "shards/build.py", "shards/check.py")


@pytest.mark.parametrize("program", [*PROGRAMS, *SHARD_PROGRAMS])
def test_every_program_explains_itself(program):
    run = subprocess.run(
        [sys.executable, *program.split(), "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0 and "usage" in run.stdout
