"""The commands of gp. `python -m gp COMMAND --help` says what each takes.

train      trains a glimpse, then evaluates it                                   gp-train
evaluate   a trained glimpse beside other methods: table, figure, report         gp-evaluate
shards     builds and checks training data: build, check, tiny                   gp-shards
bench      measures time and memory, pruned against un-pruned                    gp-bench
demo       a page in the browser: ask, prune, compare                            gp-demo
serve      an OpenAI-compatible server
front      a small model that looks, before another server
convert    trained parts between the published format and ours
doctor     versions, devices, what really runs; for bug reports

python -m gp train --config tiny
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gp import cli
from gp.commands.choosing import add_choice, start

COMMANDS = {
    "train": "gp.commands.train",
    "evaluate": "gp.commands.evaluate",
    "shards": "gp.commands.shards",
    "bench": "gp.bench.__main__",
    "demo": "gp.demo.__main__",
    "serve": "gp.serve.__main__",
    "front": "gp.front.__main__",
    "convert": "gp.convert",
    "doctor": "gp.doctor.__main__",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Hands over to the command that is named; returns its status."""
    parser = argparse.ArgumentParser(
        prog="python -m gp", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_choice(parser, COMMANDS)
    cli.add_traceback(parser)
    options = parser.parse_args(arguments)
    return cli.run(lambda: start(COMMANDS, options, parser), options.traceback or "--traceback" in options.rest)


if __name__ == "__main__":
    sys.exit(main())
