"""V* in its own format through both commands: built, evaluated as `bench=vstar`, its categories told apart."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest
from PIL import Image, ImageDraw

import evaluate
from gp.data.building import BuildConfig
from gp.data.building.build import build

CATEGORIES = ("direct_attributes", "relative_position")


def write_vstar(folder: Path, labels: Sequence[str], per_category: int = 3) -> None:
    """`test_questions.jsonl`, and each picture with a JSON of the same name, as they are published."""
    lines = []
    for number in range(2 * per_category):
        category = CATEGORIES[number // per_category]
        image = folder / category / f"sa_{number}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (84, 56), (40 * number, 90, 60))
        ImageDraw.Draw(picture).rectangle((30, 20, 44, 34), fill=(250, 250, 0))
        picture.save(image)
        image.with_suffix(".json").write_text(json.dumps({"target_object": ["thing"], "bbox": [[30, 20, 15, 15]]}))
        lines.append(
            {
                "text": "what is the red thing ?\n(A) big\n(B) small\n(C) red\n(D) blue",
                "label": labels[number],
                "image": f"{category}/{image.name}",
                "category": category,
                "question_id": number,
            }
        )
    (folder / "test_questions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def evaluated(micro, root: Path, labels: Sequence[str], *more: str) -> Path:
    """Shards built from the published form, then the bench over them; returns the folder of the results."""
    write_vstar(root / "vstar_bench", labels)
    source, shards = str(root / "vstar_bench"), str(root / "data/vstar")
    build(BuildConfig(name="vstar", annotations=[source], images=[source], out=shards, workers=0))
    quick = ["eval.costs=false", "eval.overlays=0", "eval.failures=0", f"data.root={root / 'data'}"]
    assert evaluate.main([f"ckpt={micro.ckpt}", "bench=vstar", *quick, *more, f"out={root / 'eval'}"]) == 0
    return root / "eval"


def lines_in(out: Path, label: str) -> list[dict]:
    return [json.loads(line) for line in (out / f"samples/vstar-{label}.jsonl").read_text().splitlines()]


def test_accuracy_by_category(micro, tmp_path, capsys):
    first = evaluated(micro, tmp_path / "first", list("ABCDAB"), "pruner=none")
    rows = json.loads((first / "summary.json").read_text())
    assert {"choice", "answer_accuracy"} <= rows[0].keys() and rows[0]["num_samples"] == 6
    said = {line["source_id"]: line["prediction"] for line in lines_in(first, "none-own")}
    # what the model says counts as right for two of the first category and one of the other
    labels = [said[f"{CATEGORIES[n // 3]}/{n}"] if n in (0, 1, 4) else "else" for n in range(6)]
    capsys.readouterr()
    own = ["pruner=random", "budget=0.5", "eval.sets.vstar.scores=[exact_match]"]
    out = evaluated(micro, tmp_path / "second", labels, *own)
    printed = capsys.readouterr().out

    entries = [row for row in json.loads((out / "breakdown.json").read_text()) if row["by"] == "category"]
    assert [(row["pruner"], row["group"]) for row in entries] == [
        (pruner, category) for category in CATEGORIES for pruner in ("none", "random")
    ]
    for row in entries:
        lines = lines_in(out, "none-own" if row["pruner"] == "none" else "random-0.5")
        right = [line["prediction"] == line["answer"] for line in lines if line["source_id"].startswith(row["group"])]
        assert row["num_samples"] == len(right) == 3 and row["score"] == pytest.approx(fmean(right), abs=1e-6)
    assert [row["score"] for row in entries if row["pruner"] == "none"] == pytest.approx([2 / 3, 1 / 3], abs=1e-6)
    assert [printed.count(category) for category in CATEGORIES] == [1, 1]
    with (out / "breakdown.csv").open() as file:
        assert [row["group"] for row in csv.DictReader(file) if row["by"] == "category"][::2] == list(CATEGORIES)
