"""A command of several commands: the first word says which one, the rest is its own."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping
from importlib import import_module


def add_choice(parser: argparse.ArgumentParser, commands: Mapping[str, str]) -> None:
    """Adds the name of a command and what follows it: `command` and `rest` of what is parsed."""
    parser.add_argument("command", nargs="?", help=", ".join(commands))
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="of the command; --help lists it")


def start(commands: Mapping[str, str], options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Runs the command that is named, or prints the help where none is.

    Args:
        commands: name -> module with a `main(arguments) -> status`.
        options: what a parser with `add_choice` read.
        parser: its help is printed.

    Raises:
        ValueError: no such command.
    """
    if options.command is None:
        parser.print_help()
        return 0
    if options.command not in commands:
        (near,) = difflib.get_close_matches(options.command, commands, n=1, cutoff=0.0)
        known = ", ".join(commands)
        raise ValueError(f"unknown command {options.command!r}, known are {known}; the nearest one is {near!r}")
    return import_module(commands[options.command]).main(options.rest)
