"""Installed versions against the window and setup.cfg."""

from __future__ import annotations

import pytest
import torch

from gp import window
from gp.doctor import libraries
from gp.doctor.imports import Imports
from gp.doctor.report import NOTE, OK, PROBLEM, WARNING
from tests.support.doctor_lines import by_name

is_installed = pytest.mark.skipif(
    libraries.installed_version(libraries.DISTRIBUTION) is None, reason="gp runs here without being installed"
)


@is_installed
def test_libraries_against_the_window(monkeypatch):
    found = [
        window.Library("torch", "2.13.0", ">=2.9,<2.14", True),
        window.Library("transformers", "9.0", ">=5.18,<5.25", False),
        window.Library("lightning", None, ">=2.5", False),
        window.Library("Flash_Attn", None, ">=2.7", False),  # an extra, under another spelling of its name
        window.Library("gradio", "4.0", ">=5", False),
    ]
    monkeypatch.setattr(window, "check", lambda: found)
    lines = by_name(libraries.check)
    assert lines["torch"].status == OK
    assert (
        lines["transformers"].status == WARNING and "9.0 outside (tested: >=5.18,<5.25)" in lines["transformers"].text
    )
    assert lines["lightning"].status == PROBLEM and "not installed" in lines["lightning"].text
    assert lines["Flash_Attn"].status == NOTE and "optional" in lines["Flash_Attn"].text
    assert lines["gradio"].status == WARNING
    assert "flash-attn" not in lines, "one line per library"
    assert lines["pytest"].status == OK, "extras that the window does not name are there, too"


@is_installed
def test_extras_that_the_window_leaves_out_are_compared_with_setup_cfg(monkeypatch):
    monkeypatch.setattr(window, "check", lambda: [])
    monkeypatch.setattr(libraries, "installed_version", {"gradio": "4.0", "pytest": "8.5", "glimpse-prune": "0"}.get)
    lines = by_name(libraries.check)
    assert lines["gradio"].status == WARNING and "outside (wanted: <7,>=6.31), optional" in lines["gradio"].text
    assert lines["pytest"].status == OK and lines["ruff"].status == NOTE


@is_installed
def test_every_library_of_setup_cfg_has_a_line():
    names = {libraries.plain(name) for name in by_name(libraries.check)}
    assert {libraries.plain(name) for name in libraries.required_names()} <= names
    assert {"flash-attn", "lmms-eval", "gradio", "sentencepiece"} <= names


def test_core_libraries_have_a_line_where_gp_is_not_installed(monkeypatch):
    monkeypatch.setattr(libraries, "DISTRIBUTION", "no-such-distribution")
    lines = by_name(libraries.check)
    assert lines["no-such-distribution"].status == WARNING and torch.__version__ in lines["torch"].text
    assert set(Imports().modules) >= {"torch", "transformers", "lightning"}
