"""Runs one measurement.

python -m gp.bench train             prefix without gradients against the whole sequence under autograd
python -m gp.bench grpo              a micro-batch of GlimpsePrune+, stage by stage
python -m gp.bench prefill           pruned against un-pruned, and where the time goes
python -m gp.bench zoom              a small copy and a crop against un-pruned, pruned and downsampled
python -m gp.bench looking CKPT      accuracy against questions a second: zoom by its copy's size and gate
python -m gp.bench decode            step time and memory behind a pruned, an un-pruned and a short prompt; compiled
python -m gp.bench overhead          un-pruned generate through gp against the stock model's own
python -m gp.bench batch             throughput by batch size, with rows that keep different numbers
python -m gp.bench kernels           attention kernels and lengths of prompts, pruned against un-pruned
python -m gp.bench memory            bill of a training step, and the cards that it fits
python -m gp.bench scoring           memory of ranking many visual tokens
python -m gp.bench serve             vLLM, vLLM with the plug-in, the front and our server under load
python -m gp.bench build             building shards from a split tar against reading it with tar
python -m gp.bench data              training loader against JPEG decoding and image processor alone
python -m gp.bench train --help      options: size of the model, device, attention kernel, JSON and markdown output

Options are key=value, as everywhere, or flags: `python -m gp.bench prefill preset=mid repeats=3`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

import torch

from gp import cli
from gp.bench.options import add_output_arguments
from gp.flags import KeyValueHelp, as_flags

# name -> module with a docstring, `add_arguments(parser)` and `run(options) -> BenchReport`, or None if it printed
BENCHES = {
    "train": "gp.bench.train_step",
    "grpo": "gp.bench.plus_step",
    "prefill": "gp.bench.prefill",
    "zoom": "gp.bench.zoom",
    "looking": "gp.bench.looking",
    "decode": "gp.bench.decode",
    "overhead": "gp.bench.overhead",
    "batch": "gp.bench.batch",
    "kernels": "gp.bench.kernels",
    "memory": "gp.bench.memory",
    "scoring": "gp.bench.scoring",
    "serve": "gp.bench.serve",
    "build": "gp.bench.building",
    "data": "gp.bench.data",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Hands over to the bench that is named; returns its status, 1 if memory ran out, else see `gp.cli.run`."""
    parser = make_parser()
    arguments = as_flags(parser, arguments)
    options = parser.parse_args(arguments, argparse.Namespace(arguments=arguments))
    return cli.run(lambda: run(options), options.traceback)


def run(options: argparse.Namespace) -> int:
    """Runs the bench; 1 with one line if the device's memory ran out."""
    try:
        report = options.run(options)
        if report is not None:
            report.publish(options)
        return 0
    except torch.OutOfMemoryError as error:
        print(f"error: {str(error).split('. ')[0]}: take a smaller --preset, --visual or --batch", file=sys.stderr)
        return 1


def make_parser() -> argparse.ArgumentParser:
    """Builds the parser of all benches with their options."""
    parser = argparse.ArgumentParser(
        prog="python -m gp.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="bench", required=True)
    for name, path in BENCHES.items():
        module = import_module(path)
        command = commands.add_parser(name, description=module.__doc__, formatter_class=KeyValueHelp)
        module.add_arguments(command)
        add_output_arguments(command)
        cli.add_traceback(command)
        command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
