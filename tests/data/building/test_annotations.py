"""Real lines of Visual-CoT, its benchmark, V* and own data -> rows; bad ones are counted by reason."""

from __future__ import annotations

import json

import pytest

from gp.data.building.annotations import check_annotation_path
from gp.data.building.rows import fitted_row
from tests.support.viscot_files import SETS, annotation, read, training_rows


@pytest.mark.parametrize("name", SETS)
def test_training_lines(name):
    """Against the published numbers themselves: a row is dropped exactly if no box has area inside the image."""
    rows, counter = read(*annotation(name))
    kept = iter(rows)
    for number, given in enumerate(training_rows(name), 1):
        x1, y1, x2, y2 = given["bboxs"][0]
        box = [max(0, x1), max(0, y1), min(x2, given["width"]), min(y2, given["height"])]
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        row = next(kept)
        assert row.image == f"{name}/{given['image']}"
        assert json.loads(row.json) == {
            **{key: given[key] for key in ("question", "answer", "width", "height", "dataset", "split")},
            "boxes_xyxy_px": [box],
            "source_id": f"{name}_cot_train.head:{number}",
        }
    assert next(kept, None) is None
    assert counter.seen == len(training_rows(name)) and set(counter.reasons) <= {"box outside the image"}


def test_aliases_of_folders(tmp_path):
    path = tmp_path / "x.jsonl"
    row = {"question": "q", "answer": "a", "image": "i.jpg", "width": 9, "height": 9, "bboxs": [[1, 1, 5, 5]]}
    names = ("textcap", "visual7w", "v7w", "gqa")
    path.write_text("".join(json.dumps({**row, "dataset": name, "split": "train"}) + "\n" for name in names))
    assert [row.image for row in read(path)[0]] == ["textvqa/i.jpg", "v7w/i.jpg", "v7w/i.jpg", "gqa/i.jpg"]


def test_own_lines(tmp_path):
    path = tmp_path / "mine.jsonl"
    own = {"question": "q", "answer": "a", "image": "shots/1.png", "boxes_xyxy_px": [[1, 1, 5, 5], [2, 2, 99, 9]]}
    path.write_text(json.dumps(own) + "\n\n" + json.dumps({**own, "width": 10, "height": 10, "source_id": 7}) + "\n")
    (first, second), _ = read(path)
    assert first.image == "shots/1.png" and json.loads(first.json)["width"] is None
    fitted = json.loads(fitted_row(first.json, (20, 10), "image"))
    assert fitted["boxes_xyxy_px"] == [[1, 1, 5, 5], [2, 2, 20, 9]] and (fitted["width"], fitted["height"]) == (20, 10)
    assert fitted["dataset"] == "own" and fitted["source_id"] == "mine:1"
    assert json.loads(second.json)["boxes_xyxy_px"] == [[1, 1, 5, 5], [2, 2, 10, 9]]
    assert json.loads(second.json)["source_id"] == "7"


def test_vstar(tmp_path):
    folder = tmp_path / "direct_attributes"
    folder.mkdir()
    (folder / "sa_1.json").write_text(json.dumps({"target_object": ["glove"], "bbox": [[10, 20, 30, 40]]}))
    question = {"text": "What is it?\n(A) rubber", "label": "A", "image": "direct_attributes/sa_1.jpg"}
    lines = [{**question, "category": "direct_attributes", "question_id": n} for n in (0, 1)]
    lines[1]["image"] = "direct_attributes/gone.jpg"
    (tmp_path / "test_questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (row,), counter = read(tmp_path)
    assert row.image == question["image"] and counter.reasons == {"not a question of V*": 1}
    assert json.loads(row.json)["boxes_xyxy_px"] == [[10, 20, 40, 60]]
    assert json.loads(row.json)["source_id"] == "direct_attributes/0"


BAD_LINES = {
    "wrong json": ['{"question": ', "[1]", '"text"'],
    "missing field": ['{"bboxs": [[1, 1, 2, 2]]}', '{"question": " "}'],
    "unsafe image path": ["../../etc/passwd", "/etc/passwd", "a/../../b.jpg", "c:\\\\x.jpg"],
    "no boxes": [[]],
    "wrong field": [[[1, 2, 3]], [[1, 2, 3, "4"]], "box", [[1, 1, 2, float("inf")]], [[True, 1, 2, 2]]],
    "box outside the image": [[[5, 5, 5, 9]], [[9, 9, 1, 1]], [[100, 0, 120, 9]]],
}


@pytest.mark.parametrize("reason", BAD_LINES)
def test_bad_lines_are_counted_by_reason(tmp_path, reason):
    good = {"question": "q", "answer": "a", "image": "i.jpg", "width": 50, "height": 50, "bboxs": [[1, 1, 5, 5]]}
    good.update(dataset="gqa", split="train")
    lines = []
    for bad in BAD_LINES[reason]:
        if reason in ("wrong json", "missing field"):
            lines.append(bad)
        else:
            lines.append(json.dumps({**good, ("image" if "path" in reason else "bboxs"): bad}))
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join([json.dumps(good), *lines]))
    rows, counter = read(path)
    assert len(rows) == 1 and counter.reasons == {reason: len(lines)}
    assert f"{path}:2" in str(counter.examples[reason])


def test_too_many_bad_lines_stop_it(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("no json\n" * 30)
    with pytest.raises(ValueError, match=r"21 x wrong json, e\.g\. .*x\.jsonl:1"):
        read(path, limit=0.02)


def test_entries_of_another_kind(tmp_path):
    path = tmp_path / "b.json"
    path.write_text('[{"image": ["a.jpg"]}, 3, {"image": ["a.jpg###[1, 2"], "conversations": []}]')
    assert read(path)[1].reasons == {"not an entry of the Visual-CoT benchmark": 3}
    path.write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"b\.json: expected .*list.*dict"):
        read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"b\.json: not JSON"):
        read(path)


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl: no such file"):
        check_annotation_path(tmp_path / "gone.jsonl")
    with pytest.raises(FileNotFoundError, match=r"test_questions\.jsonl"):
        check_annotation_path(tmp_path)
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(ValueError, match=r"a\.csv: expected \.jsonl"):
        check_annotation_path(tmp_path / "a.csv")
