"""Line per part of the machine."""

from __future__ import annotations

import platform

from gp.doctor import host
from tests.support.doctor_lines import by_name


def test_host_says_what_runs_here():
    lines = by_name(host.check)
    assert platform.python_version() in lines["python"].text
    assert "GiB" in lines["memory"].text and "cores" in lines["processor"].text
