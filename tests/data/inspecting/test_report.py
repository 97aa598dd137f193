"""What is shown of shards, against figures computed here from the annotations."""

from __future__ import annotations

import io
import json
import re
import runpy
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gp.data.building.build import build
from gp.data.inspecting import inspect_shards, token_counter
from gp.data.inspecting.reading import named_shards
from gp.data.inspecting.report import evidence_area
from gp.data.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from tests.support.samples import SMALL
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
    report = inspect_shards(named_shards([str(built)]), token_counter())
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
    boxes = ((0, 0, 50, 99), (25, 0, 75, 99))
    assert evidence_area(replace(SMALL, width=100, height=100, boxes_xyxy_px=boxes)) == pytest.approx(0.75, abs=0.03)


@pytest.fixture
def program(capsys):
    main = runpy.run_path(str(ROOT / "shards" / "check.py"))["main"]

    def run(*arguments) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


def test_the_program(built, tmp_path, program):
    sheet = tmp_path / "a [x].png"
    status, shown, _ = program(built, f"sheet={sheet}", "--config", ROOT / "configs" / "qwen7b.yaml", "sheet_images=3")
    assert status == 0 and "110 questions about 66 images" in shown and "4 shards match" in shown
    assert "visual tokens per image: median" in shown and "evidence, share of the image: median" in shown
    assert "66 images have fewer than 16 visual tokens" in shown and f"3 images with their boxes: {sheet}" in shown
    with Image.open(sheet) as image:
        assert image.width > 500
    assert program(tmp_path / "nothing.tar")[::2] == (2, f"error: shard {tmp_path}/nothing.tar: no such file\n")
    status, _, errors = program(built, "shet=x.png")
    assert status == 2 and "shet" in errors and "sheet" in errors


def test_the_whole_histogram_is_shown(tmp_path, program):
    files = {}
    for key, side in (("a", 56), ("b", 560)):  # 4 and 400 tokens; nothing between
        files[f"{key}.jpg"] = drawn(side, side)
        files[f"{key}.json"] = json.dumps(fields(width=side, height=side)).encode()
    status, shown, _ = program(write_tar(tmp_path / "x.tar", files))
    assert status == 0
    assert re.findall(r"^ *(\d+ \.\. \d+) (#*) (\d+)$", shown, re.MULTILINE) == [
        ("0 .. 16", "#" * 40, "1"), ("16 .. 64", "", "0"), ("64 .. 128", "", "0"), ("128 .. 256", "", "0"),
        ("256 .. 512", "#" * 40, "1"),
    ]  # fmt: skip


def flip(shard: Path, place: int) -> None:
    data = bytearray(shard.read_bytes())
    data[place] ^= 1
    shard.write_bytes(data)


def test_a_shard_that_does_not_match_is_named_and_the_others_are_read(out, program):
    shard = sorted(out.glob("*.tar"))[1]
    flip(shard, 700)
    status, shown, _ = program(out)
    assert status == 1 and "3 shards match" in shown
    assert re.search(rf"wrong: shard {shard}: {out / MANIFEST} .*SHA-256", shown)
    shard.write_bytes(shard.read_bytes()[:-512])
    status, shown, _ = program(out)
    assert status == 1 and re.search(rf"wrong: shard {shard}: {out / MANIFEST} .*\d+ bytes", shown)
    shard.unlink()
    status, _, errors = program(out)
    assert status == 2 and re.search(rf"{shard}: .*manifest", errors)


def test_a_flipped_bit_without_a_manifest(out, program):
    """In a header it ends the reading, wherever it is: the questions behind it are missed."""
    (out / MANIFEST).unlink()
    for place in (3, 130, 150):
        shard = sorted(out.glob("*.tar"))[1]
        flip(shard, place)
        status, shown, _ = program(shard)
        assert status == 1 and f"wrong: shard {shard}: truncated, or not a plain tar" in shown
        flip(shard, place)
    assert program(shard)[0] == 0


def test_wrong_counts_are_named(out):
    manifest = read_manifest(out)
    name, entry = next(iter(manifest.shards.items()))
    wrong = {**vars(entry), "samples": entry.samples + 1}
    write_manifest(out, Manifest({**manifest.shards, name: type(entry)(**wrong)}, manifest.sets))
    (message,) = inspect_shards(named_shards([str(out)]), token_counter()).damaged
    assert re.search(rf"{out / name}: .*{MANIFEST} .*{entry.samples + 1} questions", message)


def test_shards_without_a_manifest(out):
    (out / MANIFEST).unlink()
    report = inspect_shards(named_shards([f"{out}/v-{{000000..000001}}.tar"]), token_counter())
    assert (report.shards, report.checked) == (2, 0)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a.json": b"{}"}, "missing field"),
        ({"a.json": json.dumps(fields()).encode()}, "no image"),
        ({"a.jpg": drawn(9, 9)}, "no json"),
        ({"a.jpg": drawn(9, 9), "a.json": b"{"}, "wrong json"),
        ({"a.jpg": b"x", "a.json": json.dumps(fields()).encode()}, "image does not open"),
        ({"a.jpg": drawn(9, 9), "a.json": json.dumps(fields()).encode()}, "size mismatch"),
        ({"a.jpg": drawn(56, 28), "a.json": json.dumps([fields(), 3]).encode()}, "wrong json"),
        ({"a.jpg": drawn(56, 28), "a.json": json.dumps(fields(boxes_xyxy_px=[[float("nan")] * 4])).encode()}, "wrong"),
        ({"a.jpg": drawn(56, 28), "a.json": json.dumps(fields(boxes_xyxy_px=[[0, 0, 0.5, 1]])).encode()}, "fractions"),
    ],
)
def test_what_training_would_skip_is_named(tmp_path, files, reason, program):
    shard = write_tar(tmp_path / "x.tar", {**files, "b.jpg": drawn(56, 28), "b.json": json.dumps(fields()).encode()})
    status, shown, _ = program(shard)
    assert status == 1 and re.search(rf"1 of \d samples skipped: 1 x .*{reason}.*key a", shown)
    assert re.search(r"[12] questions about 2 images", shown)


def test_an_absurd_size_is_damage_and_no_traceback(tmp_path, program):
    whole = Path(write_tar(tmp_path / "x.tar", {"a.jpg": drawn(56, 28), "a.json": json.dumps(fields()).encode()}))
    header = tarfile.TarInfo("b.jpg")
    header.size = 2**60
    whole.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + whole.read_bytes())
    status, shown, _ = program(whole)
    assert status == 1 and f"wrong: shard {whole}: truncated" in shown


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize("target", ["nowhere.jpg", "a.jpg", "/etc/passwd"])
def test_links_are_not_followed(tmp_path, program, kind, target):
    shard = tmp_path / "x.tar"
    with tarfile.open(shard, "w") as tar:
        for name, data in {"a.jpg": drawn(56, 28), "a.json": json.dumps(fields()).encode()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link, text = tarfile.TarInfo("c.jpg"), tarfile.TarInfo("c.json")
        link.type, link.linkname, text.size = kind, target, len(data)
        tar.addfile(link)
        tar.addfile(text, io.BytesIO(data))
    status, shown, _ = program(shard)
    assert status == 1 and "no image" in shown and "key c" in shown


def test_no_tar(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"hello" * 1000)
    (message,) = inspect_shards([tmp_path / "x.tar"], token_counter()).damaged
    assert "x.tar: truncated" in message
    with pytest.raises(FileNotFoundError, match=r"empty.*no file matches"):
        (tmp_path / "empty").mkdir()
        named_shards([str(tmp_path / "empty")])
