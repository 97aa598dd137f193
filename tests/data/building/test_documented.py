"""The command in docs/data.md makes exactly the shards that the configs name."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest

from gp.config import load_config
from gp.data.building import describe_options, load_build_config
from gp.data.building.rows import Row
from gp.data.building.sampling import make_plan
from gp.data.inspecting import describe_options as describe_check_options

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {4}python shards/build\.py ((?:.*\\\n)*.*)$", DOCS, re.MULTILINE)


def options_of(command: str):
    return load_build_config(None, shlex.split(command.replace("\\\n", " ")))


def test_every_documented_command_is_accepted():
    assert len(COMMANDS) == 4
    for command in COMMANDS:
        options_of(command)


@pytest.mark.parametrize("words", [["--help"], ["sede=1"]], ids=["help", "mistake"])
def test_help_and_mistakes_do_not_wait_for_torch(words):
    """Importing it takes more than a second."""
    program = f"""import runpy, sys
sys.argv = ["shards/build.py", *{words!r}]
try:
    runpy.run_path("shards/build.py", run_name="__main__")
except SystemExit:
    pass
print("\\ntorch:", "torch" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("torch: False\n")


@pytest.mark.parametrize("name", ["qwen3b", "qwen7b", "llava7b", "llava13b", "qwen3vl8b"])
def test_the_configs_name_what_the_command_makes(name):
    config = options_of(next(command for command in COMMANDS if "name=gqa" in command))
    rows = [Row(f"gqa/{number % 14_000}.jpg", b"") for number in range(30_000)]
    plan = make_plan(rows, config, lambda keys: {})
    counts, made = Counter(), []
    for set_name in plan.shard_sets:
        made.append(f"{Path(config.out).name}/{set_name}-{counts[set_name]:06d}.tar")
        counts[set_name] += 1
    data = load_config(ROOT / "configs" / f"{name}.yaml").data
    named = [*data.train, *data.val, *(entry for entries in data.test.values() for entry in entries)]
    assert data.root == str(Path(config.out).parent)
    assert all(sum(fnmatch(path, entry) for entry in named) == 1 for path in made)
    assert {entry: sum(fnmatch(path, entry) for path in made) for entry in named} == dict(zip(named, (20, 1, 1)))


def test_the_page_names_only_options_that_exist():
    named = set(re.findall(r"`(\w+)=", DOCS)) - {"data"}
    known = describe_options() + describe_check_options()
    assert named and all(f"  {option} " in known for option in named)


def test_the_page_names_every_reason():
    sources = "".join(path.read_text() for path in (ROOT / "gp" / "data" / "building").glob("*.py"))
    sources += (ROOT / "gp" / "data" / "sample.py").read_text()
    reasons = set(re.findall(r"BadSample\(\s*\"([^\"]+)\"", sources)) - {"no json", "no image"}  # of shards only
    missing = {reason for reason in reasons if f"`{reason}`" not in DOCS}
    assert missing <= {"not an entry of the Visual-CoT benchmark", "not a question of V*"}
