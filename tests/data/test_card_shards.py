"""The shards of card scenes: names of splits and sizes, content, evidence in the manifest, one folder a split."""

import io
import json
import re

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from gp.data.card_shards import CARD_SPLITS, SEED, CardSplit, ensure_card_shards, parse_name
from gp.data.manifest import read_manifest
from gp.data.shards import resolve_shards
from gp.embedded.cards.layout import box_coverage
from gp.embedded.cards.samples import draw_sample
from gp.embedded.cards.scene import SceneBuilder
from shards import build_tiny

SMALL = {
    "train": CardSplit("train", ("color", "conjunction"), 5, 2),
    "test": CardSplit("test", ("color",), 2, 1),
    "test_count": CardSplit("test", ("count",), 4, 1),
}


def read_samples(paths):
    shards = wds.WebDataset([str(path) for path in paths], shardshuffle=False)
    return [{**sample, "json": json.loads(sample["json"])} for sample in shards]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "tiny"


@pytest.mark.parametrize(("split", "is_varied"), [("train", True), ("test", False)])
def test_samples_are_those_of_the_drawing(root, split, is_varied):
    paths, spec = ensure_card_shards(root, f"{split}@8x10", SMALL), SMALL[split]
    expected = [f"{split}-8x10/{split}-00000{i}.tar" for i in range(spec.num_shards)]
    assert [str(path.relative_to(root)) for path in paths] == expected
    samples = read_samples(paths)
    assert len(samples) == spec.num_samples
    builder = SceneBuilder(split, augment=is_varied)
    for index, sample in enumerate(samples):
        record, kind = sample["json"], spec.kinds[index % len(spec.kinds)]
        drawn = draw_sample(builder, kind, 8, 10, SEED + index)
        assert (record["dataset"], record["split"], record["width"], record["height"]) == (kind, split, 280, 224)
        assert (record["question"], record["answer"]) == (drawn.question.text, drawn.question.answer)
        assert [tuple(box) for box in record["boxes_xyxy_px"]] == list(drawn.boxes_xyxy_px[0])
        assert np.array_equal(Image.open(io.BytesIO(sample["jpg"])), drawn.images[0])  # halftone survives as trained


def test_the_manifest_tells_the_evidence_share(root):
    paths = ensure_card_shards(root, "test_count@8x16", SMALL)
    shares = []
    for sample in read_samples(paths):
        boxes = sample["json"]["boxes_xyxy_px"]
        shares.append(np.mean(sum(box_coverage(tuple(box), 8, 16) for box in boxes) > 0))
        assert len(boxes) == int(sample["json"]["answer"])
    info = read_manifest(paths[0].parent).sets["test_count"]
    assert info["evidence_share"] == pytest.approx(np.mean(shares), abs=1e-4)
    assert info["source"]["size"] == "8x16" and info["samples"] == 4


def test_one_split_is_built_and_no_other(root, monkeypatch):
    monkeypatch.setattr("gp.data.card_shards.CARD_SPLITS", SMALL)
    (path,) = resolve_shards(["tiny:test@8x8"], root.parent)
    assert path == str(root / "test-8x8" / "test-000000.tar")
    monkeypatch.setattr("gp.data.drawn_shards._build", lambda *_: pytest.fail("built again"))
    assert resolve_shards(["tiny:test@8x8"], root.parent) == [path]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tset", "'tset'.*train, val.*test_side.*test@12x16"),
        ("test@16", "expected a split"),
        ("test@4x4", "64 to 784.*got 4 x 4"),
        ("test@3x64", "4 or more a side"),
        ("test@40x40", "got 40 x 40"),
    ],
)
def test_wrong_names_say_what_there_is(name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        resolve_shards([f"tiny:{name}"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_default_size():
    assert parse_name("test_hard") == ("test_hard", 16, 16)
    assert parse_name("test@20x13") == ("test", 20, 13)


def test_the_default_splits_hold_enough():
    tests = {name: split for name, split in CARD_SPLITS.items() if name.startswith("test")}
    assert all(split.num_samples >= 1024 and split.scene_split == "test" for split in tests.values())
    assert tests["test_hard"].kinds == ("conjunction",)
    assert all(split.scene_split == name.partition("_")[0] for name, split in CARD_SPLITS.items())


def test_another_version_is_refused(root, monkeypatch):
    ensure_card_shards(root, "test@8x8", SMALL)
    monkeypatch.setattr("gp.data.card_shards.BUILDER_VERSION", 99)
    with pytest.raises(ValueError, match=r"expected the sets.*99.*delete the folder"):
        ensure_card_shards(root, "test@8x8", SMALL)


def test_the_command_builds_and_tells_the_evidence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gp.data.card_shards.CARD_SPLITS", SMALL)
    assert build_tiny.main(["test@8x8", "test_count@8x8", "--root", str(tmp_path / "cards")]) == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if "questions" in line)
    assert re.fullmatch(r"test@8x8: 2 questions, 1 shards in .*cards/test-8x8, evidence on \d+\.\d % of .*", first)
    assert second.startswith("test_count@8x8: 4 questions")


def test_the_command_names_a_wrong_split(tmp_path, capsys):
    assert build_tiny.main(["tset", "--root", str(tmp_path)]) == 2
    assert "test_color_of" in capsys.readouterr().err
