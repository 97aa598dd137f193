"""Runs one measurement.

python -m gp.bench train             prefix without gradients against the whole sequence under autograd
python -m gp.bench data              training loader against JPEG decoding and image processor alone
python -m gp.bench train --help
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

# threads that spin while they wait disturb the timings of small steps; read when torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# name -> module with a docstring, `add_arguments(parser)` and `run(arguments) -> int`
BENCHES = {"train": "gp.bench.train_step", "data": "gp.bench.data"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Hands over to the bench that is named; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m gp.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="bench", required=True)
    for name, path in BENCHES.items():
        module = import_module(path)
        command = commands.add_parser(
            name, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
