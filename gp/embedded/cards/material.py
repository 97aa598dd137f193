"""Digit scans and photographs of one split, as they ship in `gp/embedded/material`."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from gp.embedded import MATERIAL_DIR

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Material:
    """Scans and photographs of one split. scans: float32 [n, 8, 8] in 0..1; labels, scan_ids: int64 [n]."""

    split: str
    scans: np.ndarray
    labels: np.ndarray
    scan_ids: np.ndarray
    photo_names: tuple[str, ...]
    photos: tuple[Image.Image, ...]


@cache
def load_material(split: str) -> Material:
    """Loads the digit scans and photographs of one split.

    Raises:
        ValueError: `split` is not one of SPLITS.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    with np.load(MATERIAL_DIR / "digits.npz") as data:
        scan_ids = np.flatnonzero(data["split"] == SPLITS.index(split))
        scans = data["scans"][scan_ids].astype(np.float32) / 16.0
        labels = data["labels"][scan_ids].astype(np.int64)
    paths = sorted((MATERIAL_DIR / "photos").glob(f"{split}_*.jpg"))
    photos = tuple(Image.open(path).convert("RGB") for path in paths)
    return Material(split, scans, labels, scan_ids, tuple(path.stem for path in paths), photos)
