"""The project's idiom, `key=value`, for commands whose options are argparse's flags: `preset=mid` is `--preset mid`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

SETTING = re.compile(r"([a-z]\w*)=(.*)", re.DOTALL)
TRUE, FALSE = ("true", "1"), ("false", "0")
AS_THEY_ARE = ("help", "traceback")  # switches of every command


class KeyValueHelp(argparse.RawDescriptionHelpFormatter):
    """Lists options as `key=VALUE`, with the flag behind it."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.dest in AS_THEY_ARE:
            return super()._format_action_invocation(action)
        value = "true" if action.nargs == 0 else action.metavar or action.dest.upper()
        return f"{action.dest}={value}, {action.option_strings[0]}"


def as_flags(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> list[str]:
    """The words of a command line with `key=value` as the flags that the parser knows.

    Args:
        parser: of the command; of one with sub-commands, the options of the one that the first word names are meant.
        arguments: None: this process's.

    Returns:
        `--key=value`, for a switch `--key` or nothing; positional arguments that are given by name stand last. Any
        other word is as it was.

    Raises:
        SystemExit: of argparse, after one line: a key that there is not, or a switch that is neither true nor false.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            chosen = action.choices.get(words[0]) if words else None
            return words if chosen is None else [words[0], *as_flags(chosen, words[1:])]
    known = {action.dest: action for action in parser._actions}
    flags: list[str] = []
    places: dict[str, str] = {}
    for word in words:
        setting = SETTING.fullmatch(word)
        if setting is None or (setting[1] not in known and Path(word).exists()):
            flags.append(word)
        elif setting[1] not in known:
            _refuse(parser, setting[1], known)
        elif known[setting[1]].option_strings:
            flags += _flag(parser, known[setting[1]], setting[2])
        else:
            places[setting[1]] = setting[2]
    positional = [name for name, action in known.items() if not action.option_strings]
    if places and set(places) != set(positional):
        expected = " and ".join(f"{name}=" for name in positional)
        parser.error(f"expected {expected} together, got only {', '.join(f'{name}=' for name in places)}")
    return [*flags, *(places[name] for name in positional if name in places)]


def _refuse(parser: argparse.ArgumentParser, key: str, known: Mapping[str, argparse.Action]) -> NoReturn:
    names = [name for name, one in known.items() if name not in AS_THEY_ARE and one.help != argparse.SUPPRESS]
    (near,) = get_close_matches(key, names, n=1, cutoff=0.0)
    parser.error(f"unknown key {key!r}, known are {', '.join(names)}; the nearest one is {near!r}")


def _flag(parser: argparse.ArgumentParser, action: argparse.Action, value: str) -> list[str]:
    if action.nargs != 0:
        return [f"{action.option_strings[0]}={value}"]
    if value.lower() not in TRUE + FALSE:
        parser.error(f"{action.dest} must be true or false, got {value!r}")
    return [action.option_strings[0]] if value.lower() in TRUE else []
