"""One micro run, and one evaluation of it, for all tests that only look."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gp.eval import evaluate, load_run, timing
from gp.pruners import BASELINES
from tests.support.eval_methods import HalfWay, QuarterSize
from tests.support.eval_results import OVERRIDES
from tests.support.micro_eval import MicroRun, write_run


@pytest.fixture(scope="session", autouse=True)
def quick_timing():
    """Times are of no interest here, that they are taken is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "ROUNDS", 1)
        patch.setattr(timing, "DECODED_TOKENS", 2)
        yield


@pytest.fixture(scope="session")
def micro(tmp_path_factory) -> MicroRun:
    return write_run(tmp_path_factory.mktemp("micro"))


@pytest.fixture(scope="session")
def evaluated(micro, tmp_path_factory) -> Path:
    """The folder of a finished evaluation; not to be changed."""
    out = tmp_path_factory.mktemp("evaluated") / "eval"
    rows = evaluate(*load_run(micro.ckpt, OVERRIDES), out)
    assert rows == json.loads((out / "summary.json").read_text())
    return out


@pytest.fixture
def copied(evaluated, tmp_path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(evaluated, tmp_path / "eval")


@pytest.fixture
def half_way(monkeypatch) -> type[HalfWay]:
    monkeypatch.setitem(BASELINES, HalfWay.name, HalfWay)
    return HalfWay


@pytest.fixture
def quarter_size(monkeypatch) -> type[QuarterSize]:
    monkeypatch.setitem(BASELINES, QuarterSize.name, QuarterSize)
    return QuarterSize
