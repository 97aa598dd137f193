"""The curve: what is drawn of each row."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from gp.eval import figures
from gp.eval.figures import draw, draw_speed


def test_every_pruned_row_is_a_point_at_its_realised_budget(evaluated: Path):
    rows = json.loads((evaluated / "summary.json").read_text())
    figure, notes = draw(rows)
    points = {line.get_gid(): line for line in figure.axes[0].lines if line.get_gid() in notes}
    pruned = [row for row in rows if row["pruner"] != "none"]
    drawn = sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in points.values())
    assert drawn == sorted((100 * row["cache_ratio"], 100 * row["answer_accuracy"]) for row in pruned)
    for point, line in points.items():
        hollow = line.get_markerfacecolor() == "white"
        assert hollow == ("as glimpse" in notes[point]) and (line.get_marker() == "*") == (", own" in notes[point])


def test_every_row_is_a_point_at_its_measured_speed(evaluated: Path):
    """Un-pruned prompts as well, in both panels; the notes have the numbers."""
    rows = json.loads((evaluated / "summary.json").read_text())
    figure, notes = draw_speed(rows)
    assert len(figure.axes) == 2 and len(notes) == 2 * len(rows)
    for axes, key in zip(figure.axes, ("questions_per_s", "prefill_ratio"), strict=True):
        points = [line for line in axes.lines if line.get_gid() in notes]
        drawn = sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in points)
        assert drawn == sorted((row[key], 100 * row["answer_accuracy"]) for row in rows)
        for line in points:
            assert f"{line.get_xdata()[0]:.3g}" in notes[line.get_gid()]
    assert draw_speed([{**row, "questions_per_s": None} for row in rows]) is None


def test_figures_are_written_in_three_formats_and_the_same_each_time(evaluated: Path, tmp_path):
    rows = json.loads((evaluated / "summary.json").read_text())
    stem = tmp_path / "figures" / "curve 1.5"
    written = []
    for _ in range(2):
        with Image.open(figures.save(draw(rows)[0], stem)) as image:
            image.verify()
        written.append({path.suffix: path.read_bytes() for path in (tmp_path / "figures").iterdir()})
    files = written[0]
    assert set(files) == {".png", ".pdf", ".svg"} and files == written[1]
    assert files[".pdf"].startswith(b"%PDF-") and b"<svg" in files[".svg"]
    for name in ("test-accuracy", "test-speed"):
        assert {path.suffix for path in (evaluated / "figures").glob(f"{name}.*")} == set(files)


def test_the_axis_of_accuracy_is_where_the_points_are(evaluated: Path):
    rows = json.loads((evaluated / "summary.json").read_text())
    near = [{**row, "answer_accuracy": 0.97, "answer_accuracy_ci95": [0.96, 0.98]} for row in rows]
    low, high = draw([{**row, "answer_accuracy_unpruned": 0.97} for row in near])[0].axes[0].get_ylim()
    assert 90 < low < 96 and 98 < high <= 102
    same = [{**row, "answer_accuracy": 0.0, "answer_accuracy_ci95": [0.0, 0.0]} for row in rows]
    low, high = draw([{**row, "answer_accuracy_unpruned": 0.0} for row in same])[0].axes[0].get_ylim()
    assert low < 0 and 2 < high < 6, "where all are the same a few points are shown, no hundredths of one"
