"""Room and rights on the disks."""

from __future__ import annotations

from gp.config.schema import DataConfig, TrainConfig
from gp.doctor import disk
from gp.doctor.report import PROBLEM
from tests.support.doctor_lines import by_name


def test_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = by_name(disk.check)
    assert lines["runs"].status != PROBLEM and "to be made" in lines["runs"].text
    assert not list(tmp_path.iterdir())


def test_disk_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("a file, in which no run can be")
    lines = by_name(disk.check)
    assert lines["runs"].status == PROBLEM and "cannot be written" in lines["runs"].text
    assert lines["data"].status != PROBLEM


def test_disk_looks_where_runs_and_data_go():
    assert {"runs": TrainConfig.runs_dir, "data": DataConfig.root} == disk.PLACES
