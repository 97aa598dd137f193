"""WebDataset shards of the embedded data (`gp.embedded.cards`); a split is built when first asked for.

A split is named `SPLIT` or `SPLIT@ROWSxCOLUMNS`, the size of its scenes in visual tokens of 28 px; 16x16 unless stated.

    train       3,072 questions, half of them kind color and half conjunction
    val           256, color          val_hard   256, conjunction
    test        1,024, color          test_hard  1,024, conjunction
    test_KIND   1,024 of a kind beyond reading a number: color_of, count, exists, side
    train_KIND  1,536 of such a kind  val_KIND   256

One question per scene; digit scans and photographs of train, val and test are disjoint. `dataset` is the kind.
In training splits alone scans are distorted and photographs tinted, as in the pretraining: ten photographs are few.
Files are JPEG of quality 95, which keeps halftone numbers readable.
"""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gp.data.drawn_shards import Drawer, DrawnSet, ensure_shards
from gp.embedded.cards.layout import TOKEN_PX
from gp.embedded.cards.samples import draw_question
from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.cards.views import jpeg_bytes

BUILDER_VERSION = 2
SEED = 20261129  # scenes of the pretraining have seeds of their own
DEFAULT_SIZE = (16, 16)
MIN_TOKENS, MAX_TOKENS, MIN_SIDE = (
    64,
    784,
    4,
)  # what scenes can be drawn at, and what the base's processor leaves as it is
NAME = re.compile(r"(?P<split>\w+)(@(?P<rows>\d{1,3})x(?P<columns>\d{1,3}))?")


@dataclass(frozen=True)
class CardSplit:
    """scene_split: whose scans and photographs; kinds: taken in turn; sizes as numbers of questions and shards."""

    scene_split: str
    kinds: tuple[str, ...]
    num_samples: int
    num_shards: int


READING = ("color", "conjunction")
BEYOND = ("color_of", "count", "exists", "side")
CARD_SPLITS = {
    "train": CardSplit("train", READING, 3072, 12),
    "val": CardSplit("val", READING[:1], 256, 2),
    "val_hard": CardSplit("val", READING[1:], 256, 2),
    "test": CardSplit("test", READING[:1], 1024, 4),
    "test_hard": CardSplit("test", READING[1:], 1024, 4),
    **{f"train_{kind}": CardSplit("train", (kind,), 1536, 6) for kind in BEYOND},
    **{f"val_{kind}": CardSplit("val", (kind,), 256, 2) for kind in BEYOND},
    **{f"test_{kind}": CardSplit("test", (kind,), 1024, 4) for kind in BEYOND},
}


def parse_name(name: str) -> tuple[str, int, int]:
    """Split, rows and columns of `SPLIT` or `SPLIT@ROWSxCOLUMNS`.

    Raises:
        ValueError: no such split, or no such size.
    """
    match = NAME.fullmatch(name)
    if match is None or match["split"] not in CARD_SPLITS:
        known = ", ".join(CARD_SPLITS)
        raise ValueError(
            f"{name!r}: expected a split of the card scenes ({known}), with or without a size as in test@12x16"
        )
    rows, columns = (int(match["rows"]), int(match["columns"])) if match["rows"] else DEFAULT_SIZE
    if not MIN_TOKENS <= rows * columns <= MAX_TOKENS or min(rows, columns) < MIN_SIDE:
        raise ValueError(
            f"{name!r}: expected {MIN_TOKENS} to {MAX_TOKENS} visual tokens with {MIN_SIDE} or more a side, "
            f"got {rows} x {columns}"
        )
    return match["split"], rows, columns


def ensure_card_shards(
    root: str | Path, name: str, splits: dict[str, CardSplit] | None = None, check_hashes: bool = False
) -> list[Path]:
    """Builds one split in a folder of its own below `root` unless it is there; see `drawn_shards.ensure_shards`.

    Args:
        root: folder of all splits; a split of one size lies in `SPLIT-ROWSxCOLUMNS`.
        name: `SPLIT` or `SPLIT@ROWSxCOLUMNS`.
        splits: other sizes than the default, in tests only.
        check_hashes: also compare the SHA-256 of every shard.

    Returns:
        Its shards, sorted.

    Raises:
        ValueError: no such split or size, or the folder holds something else; the message says how to rebuild.
    """
    split, rows, columns = parse_name(name)
    spec = (splits or CARD_SPLITS)[split]
    folder = Path(root) / f"{split}-{rows}x{columns}"
    source = {"builder": "cards", "version": BUILDER_VERSION, "seed": SEED, "kinds": list(spec.kinds)}
    source["size"] = f"{rows}x{columns}"
    one = DrawnSet(partial(_drawer, split, spec, rows, columns), spec.num_samples, spec.num_shards, source, TOKEN_PX)
    return ensure_shards(folder, {split: one}, check_hashes)[split]


def _drawer(split: str, spec: CardSplit, rows: int, columns: int) -> Drawer:
    builder = SceneBuilder(spec.scene_split, augment=spec.scene_split == "train")

    def draw(index: int) -> tuple[bytes, dict]:
        kind = spec.kinds[index % len(spec.kinds)]
        scene, question = draw_question(builder, kind, rows, columns, SEED + index)
        record = {
            "question": question.text,
            "answer": question.answer,
            "boxes_xyxy_px": [list(card.box_xyxy_px) for card in question.evidence],
            "width": scene.image.width,
            "height": scene.image.height,
            "dataset": kind,
            "split": split,
            "source_id": scene.source_id,
        }
        return jpeg_bytes(scene.image), record

    return draw
