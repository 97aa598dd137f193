"""Builds the WebDataset shards of the embedded data, or checks those that are there.

    python shards/build_tiny.py                      # into data/tiny, about half a minute on 2 cores
    python shards/build_tiny.py --root /data/tiny    # elsewhere

`train.py` and `evaluate.py` build them by themselves when they are missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gp import cli
from gp.config import DataConfig
from gp.data.tiny_shards import ensure_tiny_shards


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds or checks; returns the exit status, see `gp.cli.run`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(DataConfig.root) / "tiny", help="folder to build")
    cli.add_traceback(parser)
    options = parser.parse_args(arguments)
    return cli.run(lambda: run(options.root), options.traceback)


def run(root: Path) -> None:
    """Builds what is missing and prints one line per split."""
    for split, paths in ensure_tiny_shards(root, check_hashes=True).items():
        print(f"{split}: {len(paths)} shards in {root}")


if __name__ == "__main__":
    sys.exit(main())
