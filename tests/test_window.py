"""Libraries outside the tested window are named once on `import gp`; nothing is forbidden, nothing else is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path

import packaging
import pytest
from packaging.requirements import Requirement

import gp
from gp import window

pytestmark = pytest.mark.core
ROOT = Path(__file__).resolve().parent.parent


def setup_cfg() -> list[str]:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config["options"]["install_requires"].split()


def floors() -> dict[str, str]:
    return {r.name: next(s.version for s in r.specifier if s.operator == ">=") for r in map(Requirement, setup_cfg())}


def install(site: Path, name: str, version: str, requires: Sequence[str] = ()) -> None:
    """Leaves what pip leaves of an installed distribution, as far as importlib.metadata reads it."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Builds a folder, first on the path, in which gp and the oldest allowed libraries are installed, or others."""

    def build(**versions: str) -> Path:
        install(tmp_path, "glimpse-prune", "0.1.0", [*setup_cfg(), 'gradio>=99; extra == "demo"'])
        for name, version in {**floors(), **versions}.items():
            install(tmp_path, name, version)
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path

    return build


def run(site: Path, code: str, *options: str, **environment: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=site,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_library_has_a_floor_and_is_looked_at(site):
    site()
    found = window.check()
    assert [(lib.name, lib.tested) for lib in found] == [
        (r.name, str(r.specifier)) for r in map(Requirement, setup_cfg())
    ]
    assert all(lib.inside and lib.installed == floors()[lib.name] for lib in found)


@pytest.mark.parametrize("version", ["5.18.0", "5.24.9", "5.24.0.dev0", "5.20.0rc1", "5.24.1+cu130", "5.18.0a0+git1f"])
def test_inside(site, version):
    site(transformers=version)
    assert {lib.name: lib.inside for lib in window.check()}["transformers"]


@pytest.mark.parametrize("version", ["5.17.9", "5.25.0", "5.25.0.dev0", "6.0", "main"])
def test_outside(site, version):
    site(transformers=version)
    assert [(lib.name, lib.installed) for lib in window.check() if not lib.inside] == [("transformers", version)]


def test_a_missing_library_is_not_inside_and_left_to_its_import(site, monkeypatch, recwarn):
    monkeypatch.setattr(window, "_requirements", lambda: [("no-such-library", window.SpecifierSet(">=1"))])
    assert window.check() == [window.Library("no-such-library", None, ">=1", False)]
    window.warn_outside()
    assert not recwarn


def test_inside_nothing_is_said(site):
    done = run(site(), "import gp", "-W", "error")
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_outside_one_warning_names_every_library(site):
    done = run(
        site(transformers="9.1", lightning="2.4.0"), "import gp, gp.types, gp.window; import gp; print(gp.__version__)"
    )
    assert done.returncode == 0 and done.stdout.strip()
    assert done.stderr.count("UserWarning") == 1
    for part in ("transformers 9.1", "lightning 2.4.0", "<5.25", ">=5.18", "constraints.txt"):
        assert part in done.stderr
    assert "torch " not in done.stderr


def test_the_warning_points_at_who_imports(site):
    (folder := site(transformers="9.1")).joinpath("theirs.py").write_text("import gp\n")
    assert "theirs.py:1: UserWarning" in run(folder, "import theirs").stderr


SPAWN = "import sys, multiprocessing as m; p = m.get_context('spawn').Process(target=__import__, args=('gp',)); "


def test_workers_and_other_ranks_are_silent(site):
    folder = site(transformers="9.1")
    worker = run(folder, SPAWN + "p.start(); p.join(); sys.exit(p.exitcode)")
    assert worker.returncode == 0 and "UserWarning" not in worker.stderr, worker.stderr
    assert "UserWarning" not in run(folder, "import gp", LOCAL_RANK="1").stderr
    assert "UserWarning" in run(folder, "import gp", LOCAL_RANK="0").stderr


def test_a_checkout_that_is_not_installed_says_nothing(tmp_path):
    for package in (gp, packaging):  # and no site-packages, where gp may be installed
        (tmp_path / package.__name__).symlink_to(Path(package.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", "import gp; from gp.window import check; print(check())"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
