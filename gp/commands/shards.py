"""Builds and inspects WebDataset shards.

    gp-shards build name=gqa annotations=... images=...      Visual-CoT, its benchmark, V*, or data of your own
    gp-shards check data/viscot                              what is in shards, and what is wrong with them
    gp-shards tiny                                           the shards of the embedded data

`gp-shards build --help` has its options; `inspect` is another name of `check`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gp import cli
from gp.commands.choosing import add_choice, start

COMMANDS = {
    "build": "gp.commands.build_shards",
    "check": "gp.commands.check_shards",
    "inspect": "gp.commands.check_shards",
    "tiny": "gp.commands.build_tiny_shards",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Hands over to the command that is named; returns its status."""
    parser = argparse.ArgumentParser(
        prog="gp-shards", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_choice(parser, COMMANDS)
    cli.add_traceback(parser)
    options = parser.parse_args(arguments)
    return cli.run(lambda: start(COMMANDS, options, parser), options.traceback or "--traceback" in options.rest)


if __name__ == "__main__":
    sys.exit(main())
