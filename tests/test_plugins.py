"""Methods and backbones of another package, installed as pip installs it, by name and by class."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import torch

from gp.backbones import backbone_of
from gp.eval.names import check_pruners
from gp.model import GlimpseModel
from gp.plugins import brought, load_class
from gp.pruners import METHODS, Pruner, find_class
from tests.support import commands
from tests.support.distribution import write_distribution
from tests.support.eval_results import summary_in
from tests.support.micro_eval import write_run
from tests.support.ragged import RAGGED
from tests.support.tiny_models import FAMILIES, tiny_inputs, tiny_qwen

GREEDY = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    folder = write_distribution(tmp_path / "site")
    monkeypatch.syspath_prepend(folder)
    brought.cache_clear()
    yield folder
    brought.cache_clear()
    sys.modules.pop("brings_methods", None)


@pytest.mark.parametrize("name", ["from_the_left", "brings_methods:FromTheLeft"])
def test_generate_takes_a_method_of_another_package(installed, name):
    model, inputs = GlimpseModel(tiny_qwen()), tiny_inputs(RAGGED)
    out = model.generate(**inputs, pruner=name, num_keep=3, **GREEDY)
    first = torch.cat([mask.flatten() for mask in out.keep_masks]).nonzero().flatten().tolist()
    assert first == [0, 1, 2, 24, 25, 26, 52, 53, 54]  # of each prompt
    out = model.generate(**inputs, pruner=name, num_keep=3, last=True, **GREEDY)
    assert torch.cat([mask.flatten() for mask in out.keep_masks]).nonzero().flatten().tolist()[-1] == 87
    crops = model.generate(**inputs, pruner=f"zoom({name})", num_keep=1, glance=0.5, **GREEDY).crops
    assert crops and all(one.crop.box[:2] == (0, 0) for one in crops)


def test_evaluate_takes_it_too(installed, tmp_path):
    micro = write_run(tmp_path / "micro")
    names = "from_the_left,brings_methods:FromTheLeft"
    arguments = [f"ckpt={micro.ckpt}", f"pruner={names}", "budget=0.5", "eval.costs=false", "eval.overlays=0"]
    commands.run(
        "evaluate.py", *arguments, "eval.methods.from_the_left.last=true", f"out={tmp_path / 'out'}",
        PYTHONPATH=f"{installed}:{commands.ROOT}",
    )  # fmt: skip
    rows = {row["pruner"]: row for row in summary_in(tmp_path / "out")}
    assert set(rows) >= {"none", *names.split(",")}
    assert rows["from_the_left"]["keep_ratio"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "broken",
            r"pruner 'broken' \(brings_methods:Broken\): expected a class derived from gp\.pruners\.base\.Pruner",
        ),
        ("missing", r"pruner 'missing' \(brings_nothing:At\.All\) cannot be imported: ModuleNotFoundError"),
        ("brings_methods:Nothing", r"'brings_methods:Nothing' cannot be imported: AttributeError"),
        ("nowhere:Nothing", r"'nowhere:Nothing' cannot be imported: ModuleNotFoundError"),
        ("from_the_lift", r"nearest known one is 'from_the_left'"),
        ("zoom(fastvv)", r"nearest known one is 'fastv'"),
    ],
)
def test_mistakes_are_named(installed, name, message):
    with pytest.raises(ValueError, match=message):
        GlimpseModel(tiny_qwen()).find_pruner(name)
    with pytest.raises(ValueError, match=rf"eval\.pruners: .*{message}"):
        check_pruners([name])


def test_a_broken_package_does_not_stop_others(installed):
    program = "import gp; from gp.pruners import method_names; print(*method_names())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{installed}:{commands.ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "broken" in done.stdout.split(), done.stderr


def test_a_name_of_our_own_is_not_taken_over(monkeypatch):
    monkeypatch.setattr("gp.pruners.registry.brought", lambda group: {"fastv": EntryPoint("fastv", "os:path", group)})
    assert find_class("fastv") is METHODS["fastv"]


def test_a_backbone_of_another_package(installed):
    base = tiny_qwen()
    base.config.model_type = "other_vl"
    backbone = backbone_of(base)
    assert type(backbone).__module__ == "brings_methods"
    base.config.model_type = "another_vl"
    with pytest.raises(ValueError, match=r"no backbone for model type 'another_vl'; there is one for .*'other_vl'"):
        backbone_of(base)
    assert len(FAMILIES) == 3


def test_what_is_no_class():
    with pytest.raises(ValueError, match=r"pruner 'os:path': expected a class derived from .*Pruner"):
        load_class("pruner", "os:path", Pruner)


def test_the_page_on_extending_shows_a_method_that_works(tmp_path, monkeypatch):
    """The first sample of docs/extending.md, as a module of its own."""
    page = (commands.ROOT / "docs/extending.md").read_text()
    (tmp_path / "my_methods.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    out = GlimpseModel(tiny_qwen()).generate(
        **tiny_inputs([([(5, 5)], 4)]), pruner="my_methods:Nearest", num_keep=5, **GREEDY
    )
    assert out.keep_masks[0].nonzero().tolist() == [[1, 2], [2, 1], [2, 2], [2, 3], [3, 2]]
