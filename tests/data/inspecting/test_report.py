"""What is shown of shards, against figures computed here from the annotations."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
from PIL import Image

from gp.data.building import build
from gp.data.inspecting import inspect_shards, token_counter
from gp.data.inspecting.reading import named_shards
from gp.data.inspecting.report import evidence_area
from gp.data.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from tests.support.small_shards import fields, write_tar
from tests.support.viscot_files import annotation, config, drawn, training_images, training_rows, write_folder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    images = write_folder(folder / "images", training_images("vsr", "cub"))
    build(config(folder, images, annotations=annotation("vsr", "cub"), shard_samples=30))
    return folder / "out"


@pytest.fixture
def out(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "out"))


def test_counts_areas_and_tokens(built):
    report = inspect_shards(named_shards(str(built)), token_counter())
    assert (report.samples, report.images, report.shards, report.checked) == (110, 66, 4, 4)
    assert report.groups == {("cub", "train"): 60, ("vsr", "train"): 50}
    areas = []
    for row in training_rows("vsr") + training_rows("cub"):
        x1, y1, x2, y2 = row["bboxs"][0]
        inside = (min(x2, row["width"]) - max(x1, 0)) * (min(y2, row["height"]) - max(y1, 0))
        areas.append(inside / row["width"] / row["height"])
    assert sorted(report.areas) == pytest.approx(sorted(areas))
    assert len(report.tokens) == 66 and set(report.tokens) <= set(range(4, 9))
    assert sum(report.questions_an_image.values()) == 66


def test_area_of_boxes_that_overlap():
    row = {"width": 100, "height": 100, "boxes_xyxy_px": [[0, 0, 50, 99], [25, 0, 75, 99]]}
    assert evidence_area(row) == pytest.approx(0.75, abs=0.03)


def test_the_program(built, tmp_path, capsys):
    main = runpy.run_path(str(ROOT / "shards" / "check.py"))["main"]
    sheet = tmp_path / "sheet.png"
    assert main([str(built), "--config", str(ROOT / "configs" / "qwen7b.yaml"), "--sheet", str(sheet)]) == 0
    shown = capsys.readouterr().out
    assert "110 questions about 66 images" in shown and "4 shards match" in shown
    assert "visual tokens per image: median" in shown and "evidence, share of the image: median" in shown
    with Image.open(sheet) as image:
        assert min(image.size) > 500
    assert main([str(tmp_path / "nothing.tar")]) == 2
    assert "nothing.tar: no such file" in capsys.readouterr().err


def test_a_shard_that_does_not_match_is_an_error_that_names_both(out):
    shard = sorted(out.glob("*.tar"))[1]
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{shard}: {out / MANIFEST} .*SHA-256"):
        inspect_shards(named_shards(str(out)), token_counter())
    shard.write_bytes(data[:-512])
    with pytest.raises(ValueError, match=rf"{shard}: {out / MANIFEST} .*\d+ bytes"):
        inspect_shards(named_shards(str(out)), token_counter())
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{shard}: .*manifest"):
        named_shards(str(out))


def test_wrong_counts_are_an_error(out):
    manifest = read_manifest(out)
    name, entry = next(iter(manifest.shards.items()))
    wrong = {**vars(entry), "samples": entry.samples + 1}
    write_manifest(out, Manifest({**manifest.shards, name: type(entry)(**wrong)}, manifest.sets))
    with pytest.raises(ValueError, match=rf"{out / name}: .*{MANIFEST} .*{entry.samples + 1} questions"):
        inspect_shards(named_shards(str(out)), token_counter())


def test_shards_without_a_manifest(out):
    (out / MANIFEST).unlink()
    report = inspect_shards(named_shards(f"{out}/v-{{000000..000001}}.tar"), token_counter())
    assert (report.shards, report.checked) == (2, 0)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.json": b"{}"}, "key a: expected an image and a json, found json"),
        ({"a.jpg": drawn(9, 9), "a.json": b"{"}, "key a: "),
        ({"a.jpg": b"x", "a.json": b"{}"}, "key a: cannot identify image"),
        ({"a.jpg": drawn(9, 9), "a.json": b"{}"}, "key a: not in the shards' schema: .*missing field"),
        ({"a.jpg": drawn(9, 9), "a.json": json.dumps([fields(), 3]).encode()}, "key a: not in .*expected an object"),
    ],
)
def test_records_out_of_schema_are_named(tmp_path, files, message):
    shard = write_tar(tmp_path / "x.tar", files)
    with pytest.raises(ValueError, match=rf"shard {re.escape(shard)}, {message}"):
        inspect_shards([Path(shard)], token_counter())


def test_no_tar(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"hello" * 1000)
    with pytest.raises(ValueError, match=r"x\.tar: truncated"):
        inspect_shards([tmp_path / "x.tar"], token_counter())
    with pytest.raises(FileNotFoundError, match=r"empty.*no file matches"):
        (tmp_path / "empty").mkdir()
        named_shards(str(tmp_path / "empty"))
