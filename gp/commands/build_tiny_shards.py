"""Builds the WebDataset shards of the embedded data, or checks those that are there.

    python shards/build_tiny.py                                  # what configs/tiny.yaml needs, into data/tiny
    python shards/build_tiny.py test@20x20 test_count@8x16       # other sizes, other kinds of question
    python shards/build_tiny.py test root=/data/tiny             # elsewhere

`train.py` and `evaluate.py` build them by themselves when they are missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gp import cli
from gp.config import DataConfig
from gp.data.card_shards import CARD_SPLITS, ensure_card_shards
from gp.data.manifest import read_manifest
from gp.flags import KeyValueHelp, as_flags

DEFAULT = ("train", "val", "val_hard", "test", "test_hard")  # 16x16 visual tokens


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds or checks; returns the exit status, see `gp.cli.run`."""
    parser = argparse.ArgumentParser(
        usage=cli.as_typed("python shards/build_tiny.py [SPLIT[@ROWSxCOLUMNS] ...] [root=FOLDER]"),
        description=cli.as_typed(__doc__ or ""),
        formatter_class=KeyValueHelp,
    )
    known = ", ".join(CARD_SPLITS)
    parser.add_argument(
        "splits", nargs="*", metavar="SPLIT[@ROWSxCOLUMNS]", help=f"{known}; none: {', '.join(DEFAULT)}"
    )
    parser.add_argument("--root", type=Path, help="folder of all splits; default: data/tiny")
    cli.add_traceback(parser)
    options = parser.parse_args(as_flags(parser, arguments))
    return cli.run(lambda: run(options.splits, options.root), options.traceback)


def run(splits: Sequence[str], root: Path | None) -> None:
    """Builds what is missing and prints one line per split."""
    for name in splits or DEFAULT:
        paths = ensure_card_shards(root or Path(DataConfig.root) / "tiny", name, check_hashes=True)
        manifest = read_manifest(paths[0].parent)
        assert manifest is not None  # it was checked
        (info,) = manifest.sets.values()
        share = f"evidence on {100 * info['evidence_share']:.1f} % of the visual tokens"
        print(f"{name}: {info['samples']} questions, {len(paths)} shards in {paths[0].parent}, {share}")


if __name__ == "__main__":
    sys.exit(main())
