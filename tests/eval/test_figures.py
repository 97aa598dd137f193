"""The curve: what is drawn of each row."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from gp.eval.figures import accuracy_curve, draw


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


def test_the_picture_is_written_where_it_is_asked_for(evaluated: Path, tmp_path):
    rows = json.loads((evaluated / "summary.json").read_text())
    with Image.open(accuracy_curve(rows, tmp_path / "figures" / "curve.png")) as image:
        image.verify()
