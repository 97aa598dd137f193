"""Whole builds: from annotations and images to shards that training reads, and everything that can go wrong."""

from __future__ import annotations

import io
import json
import os
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gp.data.building import packer
from gp.data.building.build import build
from gp.data.building.packer import Packer
from gp.data.building.shard_file import ShardFile
from gp.data.manifest import MANIFEST, check_shard, read_manifest
from gp.data.sample import parse_record
from gp.data.shards import Record, read_records
from tests.support.viscot_files import (
    BENCHMARKS,
    HERE,
    SETS,
    annotation,
    benchmark_images,
    config,
    drawn,
    questions,
    records,
    tar_bytes,
    training_images,
    training_rows,
    write_folder,
    write_pieces,
)

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def images():
    return training_images(*SETS)


@pytest.fixture
def pieces(tmp_path, images):
    write_pieces(tmp_path / "pieces", tar_bytes(images), 5)
    return tmp_path / "pieces"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_every_published_question_arrives_with_its_image(tmp_path, pieces, images):
    """All four excerpts, against the published files; the rows dropped are those without a box inside the image."""
    entries = build(config(tmp_path, pieces, annotations=annotation(*SETS), max_skipped_fraction=1.0, shard_samples=40))
    found = {}
    for shard in entries:
        for image, rows in records(tmp_path / "out" / shard):
            for row in rows:
                found[row["source_id"]] = (image, row)
    published = 0
    for name in SETS:
        for number, given in enumerate(training_rows(name), 1):
            x1, y1, x2, y2 = given["bboxs"][0]
            if min(x2, given["width"]) <= max(0, x1) or min(y2, given["height"]) <= max(0, y1):
                continue
            published += 1
            image, row = found[f"{name}_cot_train.head:{number}"]
            assert image == images[f"{name}/{given['image']}"]
            assert (row["question"], row["answer"], row["dataset"]) == (given["question"], given["answer"], name)
    assert published == len(found) == sum(entry.samples for entry in entries.values())


def test_training_accepts_every_record(tmp_path, pieces):
    for shard in build(config(tmp_path, pieces)):
        for image, rows in records(tmp_path / "out" / shard):
            for row in rows:
                sample = parse_record(Record("id", shard, "key", {"jpg": image, "json": json.dumps(row).encode()}))
                assert sample.boxes_xyxy_px


def test_questions_of_one_image_share_its_bytes(tmp_path, pieces):
    build(config(tmp_path, pieces))
    found = records(tmp_path / "out" / "v-000000.tar")
    assert sorted(len(rows) for _, rows in found)[-1] > 1
    assert len({image for image, _ in found}) == len(found) == len({row["image"] for row in training_rows("vsr")})
    assert sum(len(rows) for _, rows in found) == len(training_rows("vsr"))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_same_bytes_whatever_the_number_of_processes(tmp_path, pieces, workers):
    given = {"annotations": annotation("vsr", "cub"), "shard_samples": 17, "splits": {"train": 0.8, "val": 0.2}}
    build(config(tmp_path, pieces, **given))
    entries = build(config(tmp_path, pieces, **given, out=str(tmp_path / "again"), workers=workers))
    assert content(tmp_path / "out") == content(tmp_path / "again")
    assert read_manifest(tmp_path / "out") == read_manifest(tmp_path / "again")
    assert len(entries) > 6


def test_folder_and_tar_give_the_same_records(tmp_path, pieces, images):
    build(config(tmp_path, pieces, shard_samples=20))
    build(config(tmp_path, write_folder(tmp_path / "f", images), shard_samples=20, out=str(tmp_path / "again")))
    for name in content(tmp_path / "out"):
        first, again = (records(tmp_path / out / name) for out in ("out", "again"))
        assert sorted(first, key=str) == sorted(again, key=str)


def test_splits_share_no_image(tmp_path, pieces):
    build(config(tmp_path, pieces, splits={"train": 30, "val": 10, "test": 5}))
    counts, seen = {}, {}
    for split in ("train", "val", "test"):
        found = records(tmp_path / "out" / f"v-{split}-000000.tar")
        counts[split] = sum(len(rows) for _, rows in found)
        for image, _ in found:
            assert seen.setdefault(image, split) == split
    assert counts == {"train": 30, "val": 10, "test": 5}


def test_benchmarks(tmp_path):
    files = [str(HERE / f"benchmark_{name}.head.json") for name in BENCHMARKS]
    pieces = write_pieces(tmp_path / "p", tar_bytes(benchmark_images(*BENCHMARKS)), 2)
    build(config(tmp_path, pieces, annotations=files, max_skipped_fraction=0.02))
    rows = questions(tmp_path / "out")
    assert len(rows) == 15 * len(BENCHMARKS) - 1  # a box of dude's lies below its page
    assert {row["dataset"] for row in rows} == {"dude", "gqa", "textcap", "v7w", "vsr"}
    assert not any("bounding box" in row["question"] or "<image>" in row["question"] for row in rows)
    assert read_manifest(tmp_path / "out").sets["v"]["skipped"] == {"box outside the image": 1}


def test_vstar(tmp_path):
    folder = tmp_path / "vstar" / "relative_position"
    folder.mkdir(parents=True)
    Image.new("RGB", (100, 80)).save(folder / "sa_1.jpg")
    (folder / "sa_1.json").write_text('{"target_object": ["a", "b"], "bbox": [[1, 2, 10, 10], [50, 70, 20, 20]]}')
    line = {"text": "Left?\n(A) yes", "label": "A", "image": "relative_position/sa_1.jpg", "question_id": 3}
    (tmp_path / "vstar" / "test_questions.jsonl").write_text(json.dumps({**line, "category": "relative_position"}))
    build(config(tmp_path, tmp_path / "vstar", annotations=[str(tmp_path / "vstar")]))
    (row,) = questions(tmp_path / "out")
    assert row["boxes_xyxy_px"] == [[1, 2, 11, 12], [50, 70, 70, 80]] and (row["width"], row["height"]) == (100, 80)


def test_smaller_copies_keep_the_frame_of_the_boxes(tmp_path, pieces):
    build(config(tmp_path, pieces, max_pixels=300))
    original = {f"vsr_cot_train.head:{number}": row for number, row in enumerate(training_rows("vsr"), 1)}
    for image, rows in records(tmp_path / "out" / "v-000000.tar"):
        sample = parse_record(Record("id", "s", "k", {"jpg": image, "json": json.dumps(rows[0]).encode()}))
        assert sample.image.width * sample.image.height <= 300
        assert (sample.width, sample.height) == tuple(original[sample.source_id][k] for k in ("width", "height"))


def test_the_manifest_says_what_was_built(tmp_path, pieces):
    entries = build(config(tmp_path, pieces, splits={"train": 0.8, "val": 0.2}, shard_samples=20))
    manifest = read_manifest(tmp_path / "out")
    assert manifest.shards == entries and sorted(manifest.sets) == ["v-train", "v-val"]
    for name, entry in entries.items():
        check_shard(tmp_path / "out" / name, entry)
        found = records(tmp_path / "out" / name)
        assert (entry.images, entry.samples) == (len(found), sum(len(rows) for _, rows in found))
    info = manifest.sets["v-train"]
    assert info["complete"] and info["samples"] + manifest.sets["v-val"]["samples"] == len(training_rows("vsr"))
    assert info["options"]["seed"] == 42 and len(info["source"]["images"]["pieces"]) == 5
    assert info["source"]["rows"] == 50


def test_an_existing_build_is_kept_and_other_options_are_refused(tmp_path, pieces):
    first = build(config(tmp_path, pieces))
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    assert build(config(tmp_path, pieces, workers=2, max_skipped_fraction=0.5)) == first
    assert times == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    with pytest.raises(ValueError, match=r"manifest\.json .*\bv\b.* options\.seed 42, .*43.*delete v-"):
        build(config(tmp_path, pieces, seed=43))
    with pytest.raises(ValueError, match=r"set v .* source\.annotations"):
        build(config(tmp_path, pieces, annotations=annotation("cub")))
    build(config(tmp_path, pieces, name="w", seed=43))
    assert sorted(read_manifest(tmp_path / "out").sets) == ["v", "w"]


def test_damaged_missing_and_unknown_shards_are_named(tmp_path, pieces):
    build(config(tmp_path, pieces, shard_samples=20))
    shard = tmp_path / "out" / "v-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{shard}: .*{MANIFEST} .*\d+ bytes.* \d+.*delete"):
        build(config(tmp_path, pieces, shard_samples=20))
    shard.unlink()
    with pytest.raises(ValueError, match=rf"{shard}: .* missing"):
        build(config(tmp_path, pieces, shard_samples=20))
    (tmp_path / "out" / "v-000009.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"v-000009\.tar: "):
        build(config(tmp_path, pieces, shard_samples=20))
    for path in (tmp_path / "out").glob("v-*.tar"):
        path.unlink()
    assert len(build(config(tmp_path, pieces, shard_samples=20))) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_unusable_images_are_counted_by_reason(tmp_path, images, workers):
    names = list(dict.fromkeys(f"vsr/{row['image']}" for row in training_rows("vsr")))
    changed = {key: images[key] for key in names}
    del changed[names[0]]
    changed[names[1]] = images[names[1]][:200]
    changed[names[2]] = b"text"
    changed[names[3]] = next(data for key, data in images.items() if key.startswith("dude"))
    pieces = write_pieces(tmp_path / "p", tar_bytes(changed), 2)
    lost = {key: sum(f"vsr/{row['image']}" == key for row in training_rows("vsr")) for key in names[:4]}
    reasons = {
        "image not found": lost[names[0]],
        "image does not open": lost[names[1]] + lost[names[2]],
        "size mismatch": lost[names[3]],
    }
    with pytest.raises(ValueError, match=r"max_skipped_fraction = 0\.02 of 50 .*dude .*max_"):
        build(config(tmp_path, pieces, max_skipped_fraction=0.02, workers=workers))
    entries = build(config(tmp_path, pieces, max_skipped_fraction=0.5, workers=workers))
    assert read_manifest(tmp_path / "out").sets["v"]["skipped"] == reasons
    assert sum(entry.samples for entry in entries.values()) == 50 - sum(reasons.values())


def test_dude_says_what_it_needs(tmp_path, pieces):
    with pytest.raises(ValueError, match=r"box outside.*max_skipped_fraction=.*dude .*=0\.08"):
        build(config(tmp_path, pieces, annotations=annotation("dude"), max_skipped_fraction=0.02))


def test_an_archive_that_ends_early_leaves_nothing_but_what_can_be_resumed(tmp_path, images):
    whole = tar_bytes(images)
    pieces = write_pieces(tmp_path / "p", whole[: len(whole) // 2], 3)
    with pytest.raises(ValueError, match=rf"{pieces[-1]}: the archive ends"):
        build(config(tmp_path, pieces))
    assert not list((tmp_path / "out").glob("*.tar")) and not (tmp_path / "out" / MANIFEST).exists()


def test_reading_stops_when_all_wanted_images_came(tmp_path, images):
    """The end of an archive that holds nothing wanted is not read: a build of one set may not need all pieces."""
    mine = {key: data for key, data in images.items() if key.startswith("vsr")}
    whole = tar_bytes({**mine, **{key: data for key, data in images.items() if key not in mine}})
    pieces = write_pieces(tmp_path / "p", whole[: len(tar_bytes(mine))], 3)
    assert sum(entry.samples for entry in build(config(tmp_path, pieces)).values()) == 50


def test_a_shard_without_a_usable_image_is_left_out(tmp_path, images):
    names = list(dict.fromkeys(f"vsr/{row['image']}" for row in training_rows("vsr")))
    folder = write_folder(tmp_path / "f", {names[0]: images[names[0]]})
    entries = build(config(tmp_path, folder, shard_samples=1, max_skipped_fraction=1.0))
    assert list(entries) == ["v-000000.tar"] and len(questions(tmp_path / "out")) == entries["v-000000.tar"].samples


def test_shards_of_a_size(tmp_path, pieces):
    """The archive is walked twice, and read by processes that did not open it."""
    entries = build(config(tmp_path, pieces, shard_mib=0.01, workers=2))
    assert sum(entry.samples for entry in entries.values()) == 50
    images = sum(len(image) for name in entries for image, _ in records(tmp_path / "out" / name))
    assert len(entries) == -(-images // int(0.01 * 2**20))
    assert "shard_samples" not in read_manifest(tmp_path / "out").sets["v"]["options"]


def test_a_process_that_dies_is_noticed(tmp_path, pieces, monkeypatch):
    monkeypatch.setattr(Packer, "pack", lambda *_: os._exit(9))
    with pytest.raises(OSError, match=r"process \d+ of the build ended"):
        build(config(tmp_path, pieces, workers=2))


def test_an_error_in_a_process_is_the_builds(tmp_path, pieces, monkeypatch):
    def full(self, data):
        raise OSError(28, "cannot write shard: No space left on device", str(self.path))

    monkeypatch.setattr(ShardFile, "_write", full)
    with pytest.raises(OSError, match=r"No space left.*tar\.tmp"):
        build(config(tmp_path, pieces, workers=2))


def test_too_many_open_shards(tmp_path, pieces, monkeypatch):
    monkeypatch.setattr(packer.resource, "getrlimit", lambda _: (70, 70))
    with pytest.raises(ValueError, match=r"36 shards .* 6"):
        build(config(tmp_path, pieces, shard_samples=1))


def test_two_builds_of_one_name_at_once(tmp_path, pieces, monkeypatch):
    from gp.data.building import journal

    monkeypatch.setattr(journal, "LOCK_WAIT_S", 0)
    (tmp_path / "out").mkdir()
    with journal.only_build(tmp_path / "out", "v"), pytest.raises(ValueError, match="another build of 'v'"):
        build(config(tmp_path, pieces))


def test_the_program(tmp_path, pieces, capsys):
    """A build, and a mistake."""
    main = runpy.run_path(str(ROOT / "shards" / "build.py"))["main"]
    given = ["name=v", f"annotations={annotation('vsr')[0]}", f"images={pieces}", f"out={tmp_path / 'out'}"]
    assert main([*given, "workers=1"]) == 0
    assert "v: 50 questions about 36 images, 1 shards" in capsys.readouterr().out
    assert main([*given, "sede=1"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: command line: unknown key 'sede'; the nearest known one is 'seed'"
    )
    with pytest.raises(ValueError, match="sede"):
        main([*given, "sede=1", "--traceback"])


def own_rows(folder: Path, *rows: dict) -> str:
    """An annotation file of one's own; 56 x 28 px images unless a row says otherwise."""
    given = {"question": "what ?", "answer": "red", "boxes_xyxy_px": [[0, 0, 27, 27]], "width": 56, "height": 28}
    path = folder / "own.jsonl"
    lines = (json.dumps({**given, "image": f"{number}.jpg", **row}) for number, row in enumerate(rows))
    path.write_text("\n".join(lines))
    return str(path)


def test_llavas_marker_is_removed_and_others_are_refused(tmp_path, caplog):
    texts = ["<image>\nwhat ?", "what ?\n<image>", "what ?", "a <image> b", "<|image_pad|>", "<image>"]
    rows = own_rows(tmp_path, *({"question": text} for text in texts), {"answer": "<|vision_start|>"})
    folder = write_folder(tmp_path / "f", {f"{number}.jpg": drawn(56, 28, str(number)) for number in range(7)})
    build(config(tmp_path, folder, annotations=[rows], max_skipped_fraction=1.0))
    assert [row["question"] for row in questions(tmp_path / "out")] == ["what ?"] * 3
    source = read_manifest(tmp_path / "out").sets["v"]["source"]
    assert source["mended"] == {"image marker removed from the question": 2}
    assert source["skipped"] == {"image marker in a text": 3, "missing field": 1} and source["rows"] == 7
    assert "image marker removed from the question: 2 of 7 rows" in caplog.text


@pytest.mark.parametrize("max_pixels", [None, 2000])
def test_boxes_are_in_the_frame_that_a_person_sees(tmp_path, max_pixels):
    """A photograph taken with the camera on its side, annotated as it is shown; and one annotated as it is stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    stored = Image.new("RGB", (80, 40), "blue")
    stored.paste("red", (0, 20, 80, 40))  # below as stored; on the left as shown
    stored.save(buffer, "JPEG", exif=exif, quality=95)
    shown = {"width": 40, "height": 80, "boxes_xyxy_px": [[0, 0, 20, 80]]}
    rows = own_rows(tmp_path, shown, {"width": 80, "height": 40})
    folder = write_folder(tmp_path / "f", {"0.jpg": buffer.getvalue(), "1.jpg": buffer.getvalue()})
    build(config(tmp_path, folder, annotations=[rows], max_skipped_fraction=1.0, max_pixels=max_pixels))
    assert read_manifest(tmp_path / "out").sets["v"]["skipped"] == {"size mismatch": 1}
    (record,) = read_records(str(tmp_path / "out" / "v-000000.tar"), "v")
    sample = parse_record(record)
    scale = sample.image.width / sample.width
    x1, y1, x2, y2 = (side * scale for side in sample.boxes_xyxy_px[0])
    inside = np.asarray(sample.image)[int(y1) + 1 : int(y2) - 1, int(x1) + 1 : int(x2) - 1]
    assert inside.shape[0] > inside.shape[1] and inside[..., 0].mean() > 200 and inside[..., 2].mean() < 60


@pytest.mark.parametrize("workers", [0, 2])
def test_every_skipped_image_is_named_and_small_ones_are_counted(tmp_path, caplog, workers):
    rows = own_rows(tmp_path, *({} for _ in range(30)), {"width": 560, "height": 280})
    images = {f"{number}.jpg": b"text" if number < 25 else drawn(56, 28) for number in range(30)}
    folder = write_folder(tmp_path / "f", {**images, "30.jpg": drawn(560, 280)})
    build(config(tmp_path, folder, annotations=[rows], max_skipped_fraction=1.0, workers=workers))
    assert all(f": {number}.jpg: image does not open" in caplog.text for number in range(25))
    assert "5 images have fewer than 16 visual tokens" in caplog.text
    assert read_manifest(tmp_path / "out").sets["v"]["small_images"] == 5


def test_no_lock_is_left(tmp_path, pieces):
    build(config(tmp_path, pieces))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"manifest.json", "v-000000.tar"}


def test_fractions_are_asked_about(tmp_path, images):
    rows = own_rows(tmp_path, {"boxes_xyxy_px": [[0.1, 0.2, 0.5, 1.0]]})
    with pytest.raises(ValueError, match=r"boxes look like fractions of the image .*expected pixels"):
        build(config(tmp_path, write_folder(tmp_path / "f", images), annotations=[rows]))
