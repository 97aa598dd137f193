"""Libraries that cannot be imported."""

from __future__ import annotations

from gp.doctor.imports import Imports
from gp.doctor.report import PROBLEM
from tests.support.doctor_lines import by_name


def test_imports_name_the_broken_and_the_one_that_crashes(tmp_path, monkeypatch):
    (tmp_path / "gp_broken.py").write_text("raise OSError('libcudart.so.12: cannot open\\nshared object file')")
    (tmp_path / "gp_noisy.py").write_text("print('hello', end='')")
    (tmp_path / "gp_crash.py").write_text("import os\nos.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Imports(["gp_noisy", "gp_broken", "json", "gp_crash", "csv"]) as imports:
        lines = by_name(imports.check)
    assert lines.keys() == {"gp_broken", "gp_crash"}
    assert lines["gp_broken"].text == "OSError: libcudart.so.12: cannot open"
    assert "status -6" in lines["gp_crash"].text
    assert {line.status for line in lines.values()} == {PROBLEM}
