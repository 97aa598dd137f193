"""The bench measures what it says; its figures are not asserted."""

from __future__ import annotations

import json

import pytest

from gp.bench import scoring
from gp.bench.__main__ import main, make_parser
from tests.support.bench_commands import run_bench

SMALL = ["--heads", "2", "--head-size", "4", "--hidden", "8", "--keep-ratio", "0.25"]


@pytest.mark.parametrize("way", scoring.WAYS)
def test_every_way_runs(way, capsys):
    assert main(["scoring", *SMALL, "--tokens", "32", "--memory-of", way]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["peak_mib"] >= 0 and figures["seconds"] > 0


def test_a_whole_run(tmp_path, monkeypatch):
    cells = []
    monkeypatch.setattr(scoring, "in_own_process", lambda *cell: cells.append(cell) or {"peak_mib": 2, "seconds": 0.5})
    figures, markdown = run_bench(tmp_path, "scoring", *SMALL, "--tokens", "512", "1024")
    # float32: 512 x 512 is 1 MiB, twice that for 2 heads
    assert [row["matrix_mib"] for row in figures["rows"][:4]] == [2.0, 8.0, 1.0, 4.0]
    assert "| cdpruner | 1024 | 2 | 4 | 0.500 | 0.5 |" in markdown and "25 % kept" in markdown
    asked = [(way, make_parser().parse_args(arguments).tokens) for arguments, way in cells]
    assert asked == [(row["way"], [row["tokens"]]) for row in figures["rows"]]


def test_a_cell_in_a_process_of_its_own(tmp_path):
    figures, _ = run_bench(tmp_path, "scoring", *SMALL, "--tokens", "1000", "--only", "divprune")
    (row,) = figures["rows"]
    assert row["peak_mib"] >= 0 and row["seconds"] > 0 and row["matrix_mib"] == 4e6 / 2**20
