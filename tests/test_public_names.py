"""`import gp` is light, and what it offers is there when asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import gp

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", gp.__all__)
def test_every_public_name_is_there(name):
    assert getattr(gp, name) is not None and name in dir(gp)


def test_dir_is_the_public_api():
    assert dir(gp) == sorted(gp.__all__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match=r"'gp' .*'from_pretraned'"):
        _ = gp.from_pretraned


@pytest.mark.parametrize("module", ["gp", "gp.data.building"])
def test_data_programs_start_without_transformers(module):
    code = f"import sys, {module}; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
