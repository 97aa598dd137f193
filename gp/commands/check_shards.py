"""Shows what is in shards: counts, visual tokens, evidence areas; and what is wrong with them.

    python shards/check.py data/viscot --config configs/qwen7b.yaml
    python shards/check.py "data/viscot/gqa-train-{000000..000001}.tar" sheet=gqa.png

They are read as training reads them, and compared with their manifest. Status 0: all is well; 1: a question would be
skipped, or a shard is damaged or not what its manifest says; 2: nothing could be read.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gp import cli
from gp.data.inspecting import (
    Chosen,
    contact_sheet,
    describe_options,
    inspect_shards,
    load_check_config,
    named_shards,
    print_report,
    token_counter,
)

WRONG = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report; returns the exit status, see above and `gp.cli.run`."""
    options = parse(arguments)
    logging.basicConfig(format="%(message)s")
    return cli.run(lambda: run(options), options.traceback)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=cli.as_typed("python shards/check.py SHARDS ... [key=value ...] [--config FILE]"),
        description=f"{cli.as_typed(__doc__ or '')}\noptions, each as key=value:\n\n{describe_options()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("options", nargs="*", metavar="SHARDS or key=value", help="see above")
    parser.add_argument("--config", type=Path, help="a training config, whose base and pixel budget count tokens")
    cli.add_traceback(parser)
    return parser.parse_intermixed_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Reads every shard once; prints, and draws if asked to."""
    paths = [text for text in options.options if "=" not in text or Path(text).exists()]
    overrides = [text for text in options.options if text not in paths]
    config = load_check_config(options.config, overrides, paths)
    chosen = Chosen(config.sheet_images)
    report = inspect_shards(named_shards(config.shards), token_counter(config), chosen)
    print_report(report, Console())
    if config.sheet:
        contact_sheet(chosen.samples).save(config.sheet)
        print(f"{len(chosen.samples)} images with their boxes: {config.sheet}")
    return 0 if report.is_sound else WRONG


if __name__ == "__main__":
    sys.exit(main())
