"""Shows what is in shards: counts, visual tokens, evidence areas; checks them against their manifest.

python shards/check.py data/viscot --config configs/qwen7b.yaml
python shards/check.py "data/viscot/gqa-train-{000000..000001}.tar" --sheet gqa.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gp import cli
from gp.config import TrainConfig, load_config
from gp.data.inspecting import contact_sheet, inspect_shards, print_report, token_counter
from gp.data.inspecting.contact_sheet import Chosen
from gp.data.inspecting.reading import named_shards


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report; returns the exit status, 2 for shards that are not what they should be."""
    options = parse(arguments)
    return cli.run(lambda: run(options), options.traceback)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="a folder of shards, a shard, or braces in quotes")
    parser.add_argument("--config", type=Path, help="whose base and pixel budget to count visual tokens for")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here (.png)")
    cli.add_traceback(parser)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Reads every shard once; prints, and draws if asked to."""
    config = load_config(options.config) if options.config else None
    if config is not None and not isinstance(config, TrainConfig):
        raise ValueError(f"config {options.config}: expected task glimpse, got {config.task}")
    chosen = Chosen()
    report = inspect_shards(named_shards(options.path), token_counter(config and config.model), chosen)
    print_report(report, Console())
    if options.sheet:
        contact_sheet(chosen.records).save(options.sheet)
        print(f"{len(chosen.records)} images with their boxes: {options.sheet}")


if __name__ == "__main__":
    sys.exit(main())
