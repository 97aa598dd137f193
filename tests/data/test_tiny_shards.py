"""The tiny shards: schema, reproducible bytes, atomic building, damage that is named."""

import io
import json
import multiprocessing
import re
import tarfile

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from gp.data.manifest import MANIFEST
from gp.data.tiny_shards import SEED, TINY_SPLITS, SplitSpec, ensure_tiny_shards
from gp.embedded.scenes import SceneBuilder

SMALL = {
    "train": SplitSpec("train", ("color", "conjunction"), 7, 2),
    "test_hard": SplitSpec("test", ("conjunction",), 3, 1),
}
FIELDS = {"question", "answer", "boxes_xyxy_px", "width", "height", "dataset", "split", "source_id"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards") / "tiny"
    return root, ensure_tiny_shards(root, SMALL)


def read_samples(paths):
    shards = wds.WebDataset([str(path) for path in paths], shardshuffle=False)
    return [{**sample, "json": json.loads(sample["json"])} for sample in shards]


def test_schema_and_content(built):
    _, paths = built
    assert {split: len(shards) for split, shards in paths.items()} == {"train": 2, "test_hard": 1}
    samples = read_samples(paths["train"])
    assert [sample["__key__"].split("/")[-1] for sample in samples] == [f"{i:06d}" for i in range(7)]
    for index, sample in enumerate(samples):
        record = sample["json"]
        assert set(record) == FIELDS
        assert (record["dataset"], record["split"], record["width"], record["height"]) == ("tiny", "train", 224, 224)
        assert re.fullmatch(r"\d \d", record["answer"])
        ((x1, y1, x2, y2),) = record["boxes_xyxy_px"]
        assert (x2 - x1, y2 - y1) == (55, 27)
        scene = SceneBuilder("train").build(SEED + index, ("color", "conjunction")[index % 2])
        assert (record["question"], record["answer"]) == (scene.questions[0].text, scene.questions[0].answer)
        image = np.asarray(Image.open(io.BytesIO(sample["jpg"])), dtype=float)
        assert np.abs(image - np.asarray(scene.image, dtype=float)).mean() < 4


def test_same_bytes_again(built, tmp_path):
    root, _ = built
    ensure_tiny_shards(tmp_path / "again", SMALL)
    for path in sorted(root.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_later_calls_build_nothing(built, monkeypatch):
    root, paths = built
    monkeypatch.setattr("gp.data.drawn_shards._build", lambda *_: pytest.fail("built again"))
    assert ensure_tiny_shards(root, SMALL, check_hashes=True) == paths


def _call(root):
    ensure_tiny_shards(root, SMALL)


def test_two_processes_at_once(built, tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_call, args=(tmp_path / "tiny",)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    manifest = (built[0] / MANIFEST).read_bytes()
    assert (tmp_path / "tiny" / MANIFEST).read_bytes() == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gp.data.tiny_shards.sample_record", fail)
    with pytest.raises(KeyboardInterrupt):
        ensure_tiny_shards(tmp_path / "tiny", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize("damage", ["truncated", "missing", "changed", "manifest"])
def test_damage_is_one_clear_error(damage, tmp_path):
    root = tmp_path / "tiny"
    shard = ensure_tiny_shards(root, SMALL)["test_hard"][0]
    content = shard.read_bytes()
    if damage == "truncated":
        shard.write_bytes(content[:-512])
    elif damage == "missing":
        shard.unlink()
    elif damage == "changed":
        shard.write_bytes(content[:600] + bytes([content[600] ^ 1]) + content[601:])
    else:
        shard = root / MANIFEST
        shard.write_text("{")
    with pytest.raises(ValueError, match=f"{re.escape(str(shard))}.*delete the folder"):
        ensure_tiny_shards(root, SMALL, check_hashes=True)


def test_another_version_is_refused(tmp_path, monkeypatch):
    ensure_tiny_shards(tmp_path / "tiny", SMALL)
    monkeypatch.setattr("gp.data.tiny_shards.BUILDER_VERSION", 99)
    with pytest.raises(ValueError, match=r"expected the sets.*99.*delete the folder"):
        ensure_tiny_shards(tmp_path / "tiny", SMALL)


def test_the_default_splits_hold_enough():
    assert TINY_SPLITS["test"].num_samples == TINY_SPLITS["test_hard"].num_samples == 1024
    assert TINY_SPLITS["test"].kinds == ("color",)
    assert TINY_SPLITS["val"].scene_split == TINY_SPLITS["val_hard"].scene_split == "val"


def test_shards_are_plain_tars(built):
    with tarfile.open(built[1]["test_hard"][0]) as tar:
        assert {member.mtime for member in tar.getmembers()} == {0}
