"""The bench measures what it says; its figures are not asserted."""

from __future__ import annotations

import json

import pytest

from gp.bench import scoring
from gp.bench.__main__ import main

SMALL = ["--heads", "2", "--head-size", "4", "--hidden", "8", "--keep", "25"]


@pytest.mark.parametrize("way", scoring.WAYS)
def test_every_way_runs(way, capsys):
    assert main(["scoring", *SMALL, "--tokens", "32", "--memory-of", way]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["peak_mib"] >= 0 and figures["seconds"] > 0


def test_a_whole_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "_process", lambda *cell: {"peak_mib": 2.0, "seconds": 0.5})
    assert main(["scoring", *SMALL, "--tokens", "512", "1024", "--json", str(tmp_path / "out.json")]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    # float32: 512 x 512 is 1 MiB, twice that for 2 heads
    assert [row["matrix_mib"] for row in rows[:4]] == [2.0, 8.0, 1.0, 4.0]
    assert "cdpruner" in capsys.readouterr().out


@pytest.mark.parametrize("bad", [["--heads", "0"], ["--keep", "101"], ["--tokens", "1"]])
def test_sizes_that_cannot_be_are_named(bad, capsys):
    assert main(["scoring", *bad]) == 2
    assert bad[0] in capsys.readouterr().err
