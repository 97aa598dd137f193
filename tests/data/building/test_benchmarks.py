"""Entries of the Visual-CoT benchmark -> rows."""

from __future__ import annotations

import json

import pytest

from gp.data.building.benchmarks import question_alone
from gp.data.building.rows import fitted_row
from gp.data.sample import BadSample
from tests.support.viscot_files import BENCHMARKS, HERE, implied_size, read


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_entries(name):
    path = HERE / f"benchmark_{name}.head.json"
    rows, counter = read(path)
    assert len(rows) == 15 and not counter.skipped
    outside = 0
    for row, entry in zip(rows, json.loads(path.read_text())):
        size = implied_size(entry)
        if json.loads(entry["image"][1].split("###")[1])[1] >= size[1]:  # one of dude's lies below its page
            outside += 1
            with pytest.raises(BadSample, match="box outside the image"):
                fitted_row(row.json, size, "image")
            continue
        fields = json.loads(fitted_row(row.json, size, "image"))
        assert f"cot/{row.image}" == entry["image"][0]
        assert entry["conversations"][0]["value"].startswith(f"<image>\n{fields['question']} Please provide")
        assert fields["answer"] == entry["conversations"][3]["value"]
        assert f"###{fields['boxes_xyxy_px'][0]}" in entry["image"][1]
        assert (fields["width"], fields["height"], fields["source_id"]) == (*size, str(entry["question_id"]))
        assert len(fields) == 8
    assert outside == (name == "dude")


def test_another_image_than_the_benchmarks_is_noticed():
    rows, _ = read(HERE / "benchmark_gqa.head.json")
    with pytest.raises(BadSample, match="the two boxes disagree"):
        fitted_row(rows[0].json, (2000, 100), "image")


def test_a_question_is_what_a_user_would_ask():
    request = "Please provide the bounding box coordinate of the region that can help you answer the question better."
    assert question_alone(f"<image>\nWhat is it? {request}") == "What is it?"
    assert question_alone("Which one?\n<image>") == "Which one?"
