"""Regenerates gp/embedded/material from the files inside the scikit-learn and scikit-image wheels.

Run by hand, once; the product itself needs neither package.

    pip install scikit-learn scikit-image
    python -m gp.embedded.making.material

Writes `digits.npz` (scans uint8 [1797, 8, 8] with ink 0..16, labels uint8 [1797], split uint8 [1797]: 0 train,
1 val, 2 test) and `photos/<split>_<name>.jpg` (longest side at most 480 px). A photograph belongs to one split
only; the splits are fixed here and nowhere else. Sources and licences: `LICENSES.md` beside them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gp import cli
from gp.embedded import MATERIAL_DIR

SPLIT_CODES = {"train": 0, "val": 1, "test": 2}
NUM_VAL_SCANS = 140
NUM_TEST_SCANS = 400
SPLIT_SEED = 20261122
LONGEST_SIDE_PX = 480

# Only photographs whose licence is stated and free (public domain, CC0, CC BY); others in the wheels are left out.
PHOTOS = {
    "train": [
        "skimage/astronaut.png",
        "skimage/brick.png",
        "skimage/camera.png",
        "skimage/cell.png",
        "skimage/chelsea.png",
        "sklearn/china.jpg",
        "skimage/clock_motion.png",
        "skimage/gravel.png",
        "skimage/hubble_deep_field.jpg",
        "skimage/rocket.jpg",
    ],
    "val": ["skimage/grass.png", "skimage/text.png"],
    "test": ["skimage/coffee.png", "sklearn/flower.jpg", "skimage/retina.jpg"],
}
FOLDERS = {"skimage": ("skimage", "data"), "sklearn": ("sklearn", "datasets/images")}


def write_digits(path: Path) -> None:
    """Write the scans with a fixed random split: 1,257 train, 140 val, 400 test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(digits.target))
    split = np.full(len(order), SPLIT_CODES["train"], dtype=np.uint8)
    split[order[:NUM_TEST_SCANS]] = SPLIT_CODES["test"]
    split[order[NUM_TEST_SCANS : NUM_TEST_SCANS + NUM_VAL_SCANS]] = SPLIT_CODES["val"]
    np.savez_compressed(path, scans=digits.images.astype(np.uint8), labels=digits.target.astype(np.uint8), split=split)


def write_photo(source: Path, target: Path) -> None:
    """Write one photograph as RGB JPEG with its longest side at most LONGEST_SIDE_PX."""
    image = Image.open(source).convert("RGB")
    scale = LONGEST_SIDE_PX / max(image.size)
    if scale < 1:
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS)
    image.save(target, quality=90)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the material; returns the exit status, see `gp.cli.run`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=MATERIAL_DIR, help="folder to write")
    cli.add_traceback(parser)
    options = parser.parse_args(arguments)
    return cli.run(lambda: run(options.out), options.traceback)


def run(out: Path) -> None:
    """Writes digits and photographs below `out`."""
    (out / "photos").mkdir(parents=True, exist_ok=True)
    write_digits(out / "digits.npz")
    for split, names in PHOTOS.items():
        for name in names:
            package, file_name = name.split("/")
            module, folder = FOLDERS[package]
            spec: Any = find_spec(module)
            source = Path(spec.submodule_search_locations[0]) / folder / file_name
            write_photo(source, out / "photos" / f"{split}_{Path(file_name).stem}.jpg")


if __name__ == "__main__":
    sys.exit(main())
