"""What is said about checks: none stops another one, and what they found decides the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gp.doctor import __main__ as doctor
from gp.doctor import report
from gp.doctor.imports import Imports
from gp.doctor.report import OK, PROBLEM, WARNING, Line


def fine():
    yield Line("thing", "works", OK)


def odd():
    yield Line("library", "newer than tested", WARNING)


def broken():
    yield Line("first", "found before the error", OK)
    raise RuntimeError("no kernel image\nis available")


@pytest.fixture
def checks(monkeypatch):
    """Sets the checks to run; the imports in the second process become one of a small module."""

    def set_checks(**checks):
        monkeypatch.setattr(doctor, "CHECKS", checks)
        monkeypatch.setattr(doctor, "Imports", lambda: Imports(["json"]))

    return set_checks


def test_all_well(checks, capsys):
    checks(one=fine, two=fine)
    assert doctor.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all well"


def test_a_broken_check_is_reported_and_stops_no_other(checks, capsys):
    checks(one=broken, two=fine)
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "found before the error" in out, "what a check found before its error stays"
    assert "RuntimeError: no kernel image\n" in out and "Traceback" not in out
    assert "works" in out.partition("two")[2]
    assert out.splitlines()[-1] == "1 problem: one/this check"


def test_the_traceback_is_shown_on_demand(checks, capsys):
    checks(one=broken)
    doctor.main(["--traceback"])
    out = capsys.readouterr().out
    assert "Traceback (most recent call last)" in out and "in broken" in out


def test_warnings_are_no_problems(checks, capsys):
    checks(one=odd, two=fine)
    assert doctor.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all well (1 warning: one/library)"


@pytest.mark.parametrize(("options", "has_traceback"), [(["--json"], False), (["--json", "--traceback"], True)])
def test_json_holds_the_same(checks, capsys, options, has_traceback):
    checks(one=broken, two=fine)
    assert doctor.main(options) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["has_problems"] is True and found["verdict"] == "1 problem: one/this check"
    lines = {section["name"]: section["lines"] for section in found["sections"]}
    assert [line["status"] for line in lines["one"]] == [OK, PROBLEM]
    assert [line["name"] for line in lines["two"]] == ["thing"]
    assert ("traceback" in lines["one"][1]) == has_traceback


def test_an_error_without_a_message_has_a_line_too():
    line = Line.of_error("x", KeyError())
    assert line.status == PROBLEM and line.text.startswith("KeyError: ") and len(line.text.splitlines()) == 1


def test_the_home_folder_is_not_published(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "somebody")
    assert report.tidy(tmp_path / "somebody" / "cache") == "~/cache"
    assert report.tidy(tmp_path / "else") == str(tmp_path / "else")
