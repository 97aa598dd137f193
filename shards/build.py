"""Builds WebDataset shards: Visual-CoT, its benchmark, V*, or data of your own (docs/data.md).

    python shards/build.py name=gqa out=shards/viscot annotations=viscot_dataset/gqa_cot_train.jsonl \\
        images=cot_images_tar_split sample=random:22000 'splits={train: 20000, val: 1000, test: 1000}'

The pieces of the split tar are read in place, in one pass. Run the same command again after a kill: it goes on.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # instead of this folder, where inspect.py would hide Python's own module of that name
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from gp.data.building import build, describe_options, load_build_config


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds; returns the exit status, 2 for a mistake in options or data, 130 after an interrupt."""
    options = parse(arguments)
    logging.basicConfig(format="%(message)s")
    try:
        config = load_build_config(options.config, options.options)
        entries = build(config)
    except (ValueError, OSError) as error:
        if options.traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 130
    for name in sorted({entry.set for entry in entries.values()}):
        mine = [entry for entry in entries.values() if entry.set == name]
        samples, images, size = (sum(getattr(e, key) for e in mine) for key in ("samples", "images", "bytes"))
        print(f"{name}: {samples} questions about {images} images, {len(mine)} shards, {size / 2**20:.0f} MiB")
    print(f"in {config.out}, with their sizes and hashes in manifest.json")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage="python shards/build.py key=value ... [--config FILE]",
        description=f"{__doc__}\noptions, each as key=value or in the file:\n{describe_options()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("options", nargs="*", metavar="key=value", help="see above")
    parser.add_argument("--config", type=Path, help="a YAML file of options; the command line wins")
    parser.add_argument("--traceback", action="store_true", help="show where a mistake in options or data was noticed")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
