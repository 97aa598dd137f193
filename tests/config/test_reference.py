"""The options in words: `--help` and the reference page, both from the schema."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gp.config import TrainConfig
from gp.config.gate import GateRunConfig
from gp.config.plus import PlusConfig
from gp.config.pretrain import PretrainConfig
from gp.config.pretrain_cards import CardsPretrainConfig
from gp.config.reference import page
from gp.config.scoring import ScoreConfig
from gp.config.table import options_of

ROOT = Path(__file__).resolve().parents[2]
HELP = """
import sys, {script}
try:
    {script}.main(["--help"])
finally:
    assert not {{"torch", "transformers", "lightning"}} & set(sys.modules), "--help waits for a large library"
"""


def test_the_page_is_current():
    command = "python -m gp.config.reference > docs/options.md"
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8") == page(), f"run {command}"


def test_the_page_is_what_the_command_prints():
    done = subprocess.run([sys.executable, "-m", "gp.config.reference"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == page()


@pytest.mark.parametrize(
    ("script", "schemas"),
    [
        ("train", (TrainConfig, PlusConfig, PretrainConfig, CardsPretrainConfig)),
        ("evaluate", (TrainConfig, ScoreConfig)),
    ],
)
def test_help_lists_every_option_and_is_quick(script, schemas):
    command = [sys.executable, "-c", HELP.format(script=script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for one in (one for schema in schemas for one in options_of(schema)):
        (line, *others) = [line for line in done.stdout.splitlines() if line.startswith(f"  {one.key} ")]
        assert one.rule.help in line or any(one.rule.help in other for other in others)
    assert "optim.lr                         peak learning rate (default 0.0001)" in done.stdout
    assert "(required)" in done.stdout


def test_help_names_nothing_that_is_not_an_option():
    schemas = (TrainConfig, PlusConfig, GateRunConfig, PretrainConfig, CardsPretrainConfig, ScoreConfig)
    keys = {one.key for schema in schemas for one in options_of(schema)}
    named = {line.split("`")[1] for line in page().splitlines() if line.startswith("| `")}
    assert named == keys
