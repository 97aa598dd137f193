"""Build the WebDataset shards of the embedded data, or check those that are there.

    python shards/build_tiny.py                      # into shards/tiny, about half a minute on 2 cores
    python shards/build_tiny.py --root /data/tiny    # elsewhere

`train.py` and `evaluate.py` build them by themselves when they are missing.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # instead of this folder, where inspect.py would hide Python's own module of that name
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
from pathlib import Path

from gp.data.tiny_shards import ensure_tiny_shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent / "tiny", help="folder to build")
    root = parser.parse_args().root
    for split, paths in ensure_tiny_shards(root, check_hashes=True).items():
        print(f"{split}: {len(paths)} shards in {root}")


if __name__ == "__main__":
    main()
