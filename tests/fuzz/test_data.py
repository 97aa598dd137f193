"""Mutated annotations, images and shards: refused by name, skipped and counted, or read rightly.

python -m pytest -m slow tests/fuzz -s     # prints how often each came
"""

from __future__ import annotations

import json
import random
import runpy
import shutil
from pathlib import Path

import pytest

from gp.boxes import has_area
from gp.data.batch import Collator
from gp.data.building.build import build
from gp.data.loading import EvalLoader, collate_eval
from gp.data.manifest import check_shard, read_manifest
from gp.data.sample import Sample, parse_record
from gp.data.shards import read_records
from gp.data.stream import EvalStream
from tests.support.mutations import as_text, changed, damaged, outcomes
from tests.support.small_shards import add_manifest, fields, image_bytes, small_processor, write_tar
from tests.support.viscot_files import config, drawn, tar_bytes, training_images, training_rows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("JPEG", "PNG", "WEBP")
COUNT = 6


@pytest.fixture(scope="module")
def collator():
    return Collator(small_processor())


def check_sample(sample: Sample) -> None:
    """What everything behind the reading relies on."""
    assert sample.image.mode == "RGB" and sample.question.strip() and sample.answer.strip()
    assert sample.boxes_xyxy_px and has_area(sample.boxes_xyxy_px).all()
    for x1, y1, x2, y2 in sample.boxes_xyxy_px:
        assert 0 <= x1 < x2 <= sample.width and 0 <= y1 < y2 <= sample.height
    across, down = sample.image.width / sample.width, sample.image.height / sample.height
    assert abs(down / across - 1) < 0.5 or min(sample.image.size) < 8


def stored(rng: random.Random) -> tuple[dict[str, bytes], bool]:
    """Files of a small shard, and whether one of them was changed."""
    bad = rng.randrange(COUNT + 2)
    files = {}
    for number in range(COUNT):
        image = image_bytes(kind=rng.choice(KINDS))
        row = fields(question=f"what is here ? {number}")
        rows = [row, fields()] if number == 3 else row
        text = json.dumps(rows).encode()
        if number == bad:
            if rng.random() < 0.5:
                image = damaged(image, rng)
            else:
                text = as_text(changed(rows, rng), rng)
        files[f"{number:04d}.jpg"], files[f"{number:04d}.json"] = image, text
    return files, bad < COUNT


def test_build(tmp_path):
    rows, images = training_rows("vsr")[:12], training_images("vsr")

    def attempt(rng: random.Random) -> str:
        folder = tmp_path / "b"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        given = [json.dumps(changed(row, rng) if rng.random() < 0.3 else row) for row in rows]
        text = "\n".join(given).encode("utf-8", "surrogatepass")
        (folder / "a.jsonl").write_bytes(damaged(text, rng) if rng.random() < 0.3 else text)
        files = {key: damaged(data, rng) if rng.random() < 0.2 else data for key, data in images.items()}
        archive = tar_bytes(files)
        (folder / "images.tar").write_bytes(damaged(archive, rng) if rng.random() < 0.3 else archive)
        options = config(folder, folder / "images.tar", annotations=[str(folder / "a.jsonl")], max_skipped_fraction=1.0)
        entries = build(options)
        read = 0
        for name, entry in entries.items():
            check_shard(folder / "out" / name, entry)
            for record in read_records(str(folder / "out" / name), name):
                check_sample(parse_record(record))
                read += 1
        info = read_manifest(folder / "out").sets["v"]
        assert read == info["samples"] == info["source"]["rows"] - skipped(info)
        return "built with skips" if skipped(info) else "built whole"

    counts = outcomes("build", attempt)
    assert min(counts["built with skips"], counts["refused"]) > 10


def skipped(info: dict) -> int:
    return sum(info["skipped"].values()) + sum(info["source"]["skipped"].values())


def test_stream(tmp_path, collator):
    def attempt(rng: random.Random) -> str:
        files, is_changed = stored(rng)
        shard = Path(write_tar(tmp_path / "x.tar", files))
        if not is_changed:
            shard.write_bytes(damaged(shard.read_bytes(), rng))
        stream = EvalStream([str(shard)], batch_size=3)
        loader = EvalLoader([collate_eval(collator, raw) for raw in stream], 1.0)
        samples = [sample for batch in loader for sample in batch.samples]
        for sample in samples:
            check_sample(sample)
        if is_changed:  # the archive is whole: every record comes, or is counted
            lists = json.loads(files["0003.json"]) if _is_json(files["0003.json"]) else None
            expected = COUNT - 1 + (len(lists) if isinstance(lists, list) and lists else 1)
            assert loader.skips.seen == len(samples) + loader.skips.skipped == expected
        return "skipped" if loader.skips.skipped else "read"

    counts = outcomes("stream", attempt)
    assert min(counts["skipped"], counts["refused"], counts["read"]) > 5


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def test_inspect(tmp_path, capsys):
    """Beside a manifest no change of a single bit gets past it."""
    main = runpy.run_path(str(ROOT / "shards" / "check.py"))["main"]

    def attempt(rng: random.Random) -> str:
        folder = tmp_path / "i"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        files, is_changed = stored(rng)
        shard = Path(write_tar(folder / "x.tar", files))
        before = shard.read_bytes()
        has_manifest = rng.random() < 0.5
        if has_manifest:
            add_manifest([str(shard)], [COUNT + 1])
        if not is_changed:
            shard.write_bytes(damaged(before, rng))
        status = main([str(shard)])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err and status in (0, 1, 2)
        if status == 0:
            assert f"{COUNT + 1} questions about {COUNT} images" in shown.out or not has_manifest
            assert not has_manifest or shard.read_bytes() == before
        return f"status {status}"

    counts = outcomes("inspect", attempt)
    with capsys.disabled():
        print(f"\ninspect: {dict(counts)}")
    assert counts["status 1"] > 100


def test_pictures(tmp_path):
    """Any damage to an image's bytes is a picture or a named error."""
    from gp.pictures import BadPicture, read_picture

    def attempt(rng: random.Random) -> str:
        data = damaged(drawn(rng.randint(1, 90), rng.randint(1, 90), str(rng.random()), rng.choice(KINDS)), rng)
        try:
            return f"picture {read_picture(data).mode}"
        except BadPicture as error:
            return error.reason

    counts = outcomes("pictures", attempt)
    assert set(counts) == {"picture RGB", "image does not open"}
