"""Builds WebDataset shards: Visual-CoT, its benchmark, V*, or data of your own (docs/data.md).

    python shards/build.py name=gqa out=data/viscot annotations=viscot_dataset/gqa_cot_train.jsonl \\
        images=cot_images_tar_split sample=random:22000 'splits={train: 20000, val: 1000, test: 1000}'

The pieces of the split tar are read in place, in one pass. Run the same command again after a kill: it goes on.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from gp import cli
from gp.data.building import describe_options, load_build_config


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds; returns the exit status, see `gp.cli.run`."""
    options = parse(arguments)
    logging.basicConfig(format="%(message)s")
    again = "run the same command again to go on"
    return cli.run(lambda: run(options.config, options.options), options.traceback, again)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=cli.as_typed("python shards/build.py key=value ... [--config FILE]"),
        description=f"{cli.as_typed(__doc__ or '')}\noptions, as key=value or in the file:\n\n{describe_options()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("options", nargs="*", metavar="key=value", help="see above")
    parser.add_argument("--config", type=Path, help="a YAML file of options; the command line wins")
    cli.add_traceback(parser)
    return parser.parse_intermixed_args(arguments)


def run(path: Path | None, overrides: Sequence[str]) -> None:
    """Builds what the options say and prints one line per set."""
    config = load_build_config(path, overrides)
    from gp.data.building.build import build  # only now: `--help` and mistakes do not wait for torch

    entries = build(config)
    for name in sorted({entry.set for entry in entries.values()}):
        mine = [entry for entry in entries.values() if entry.set == name]
        samples, images, size = (sum(getattr(e, key) for e in mine) for key in ("samples", "images", "bytes"))
        print(f"{name}: {samples} questions about {images} images, {len(mine)} shards, {size / 2**20:.0f} MiB")
    print(f"in {config.out}, with their sizes and hashes in manifest.json")


if __name__ == "__main__":
    sys.exit(main())
