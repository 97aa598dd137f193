"""WebDataset shards of the embedded data, built once from scenes and checked ever after.

A sample is `{key}.jpg` (224 x 224 px) and `{key}.json` with `question`, `answer`, `boxes_xyxy_px` (lists of ints,
last pixel inclusive), `width`, `height`, `dataset` ("tiny"), `split`, `source_id`. One question per scene.

    train     14,336 samples, half of them kind color and half conjunction
    val        512, color          val_hard   512, conjunction
    test       1,024, color        test_hard  1,024, conjunction

Digit scans and photographs of train, val and test are disjoint (`gp.embedded.scenes`).
"""

import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gp.data.drawn_shards import Drawer, DrawnSet, ensure_shards
from gp.embedded.scenes import SceneBuilder

BUILDER_VERSION = 2
SEED = 20261122
JPEG_QUALITY = 92
DATASET = "tiny"


@dataclass(frozen=True)
class SplitSpec:
    """scene_split: of `gp.embedded.scenes`; kinds: taken in turn; sizes as numbers of samples and shards."""

    scene_split: str
    kinds: tuple[str, ...]
    num_samples: int
    num_shards: int


TINY_SPLITS = {
    "train": SplitSpec("train", ("color", "conjunction"), 14336, 28),
    "val": SplitSpec("val", ("color",), 512, 2),
    "val_hard": SplitSpec("val", ("conjunction",), 512, 2),
    "test": SplitSpec("test", ("color",), 1024, 4),
    "test_hard": SplitSpec("test", ("conjunction",), 1024, 4),
}


def ensure_tiny_shards(
    root: str | Path, splits: dict[str, SplitSpec] = TINY_SPLITS, check_hashes: bool = False
) -> dict[str, list[Path]]:
    """Builds the shards under `root` unless they are there; see `gp.data.drawn_shards.ensure_shards`.

    Args:
        root: folder of the shards and their `manifest.json`; made if missing.
        splits: what to build; other than the default in tests only.
        check_hashes: also compare the SHA-256 of every shard.

    Returns:
        Split name to its shard paths, sorted.
    """
    source = {"builder": "tiny", "version": BUILDER_VERSION, "seed": SEED}
    sets = {
        split: DrawnSet(partial(_drawer, split, spec), spec.num_samples, spec.num_shards, source)
        for split, spec in splits.items()
    }
    return ensure_shards(Path(root), sets, check_hashes)


def sample_record(split: str, spec: SplitSpec, index: int, builder: SceneBuilder) -> tuple[bytes, dict]:
    """Sample `index` of a split: its JPEG bytes and its JSON record."""
    scene = builder.build(SEED + index, spec.kinds[index % len(spec.kinds)])
    question = scene.questions[0]
    buffer = io.BytesIO()
    scene.image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    record = {
        "question": question.text,
        "answer": question.answer,
        "boxes_xyxy_px": [list(box) for box in question.boxes_xyxy_px],
        "width": scene.image.width,
        "height": scene.image.height,
        "dataset": DATASET,
        "split": split,
        "source_id": scene.source_id,
    }
    return buffer.getvalue(), record


def _drawer(split: str, spec: SplitSpec) -> Drawer:
    builder = SceneBuilder(spec.scene_split)
    return lambda index: sample_record(split, spec, index, builder)
