"""Says what a bug report needs to know about an installation, and whether it works. Paste all of it into the report.

python -m gp.doctor                 20 s of CPU time in two processes; exit status 1 if there are problems
python -m gp.doctor --traceback     with the whole error behind each problem
python -m gp.doctor json=true       the same for programs
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import sys
import time
from collections.abc import Mapping, Sequence

from gp import cli
from gp.doctor import devices, disk, host, kernels, libraries, question
from gp.doctor.imports import Imports
from gp.doctor.report import Check, CheckSection, as_json, has_problems, verdict
from gp.flags import KeyValueHelp, as_flags

CHECKS: dict[str, Check] = {
    "host": host.check,
    "libraries": libraries.check,
    "disk": disk.check,
    "devices": devices.check,
    "question": question.check,
    "kernels": kernels.check,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs every check; returns 0, or 1 if there are problems, else see `gp.cli.run`."""
    parser = make_parser()
    options = parser.parse_args(as_flags(parser, arguments))
    return cli.run(lambda: run(options), options.traceback)


def run(options: argparse.Namespace) -> int:
    """Prints what every check finds; 1 if there are problems."""
    start = time.monotonic()
    with Imports() as imports:
        sections = examine({**CHECKS, "imports": imports.check}, options)
    seconds = time.monotonic() - start
    if options.json:
        print(json.dumps(as_json(sections, seconds, options.traceback), indent=2))
    else:
        parts = ", ".join(f"{section.name} {section.seconds:.1f}" for section in sections)
        print(f"{seconds:.1f} s: {parts}\n{verdict(sections)}")
    return int(has_problems(sections))


def examine(checks: Mapping[str, Check], options: argparse.Namespace) -> list[CheckSection]:
    """Runs checks one after the other; as text, each line is out before the next thing is tried."""
    sections = []
    for name, check in checks.items():
        sections.append(CheckSection(name))
        if not options.json:
            print(name, flush=True)
        for line in sections[-1].run(check):
            if not options.json:
                print(line.render(options.traceback), flush=True)
    return sections


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gp.doctor", description=__doc__, formatter_class=KeyValueHelp)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    cli.add_traceback(parser)
    return parser


if __name__ == "__main__":
    faulthandler.enable()  # a library that crashes while it is tried says where
    sys.exit(main())
