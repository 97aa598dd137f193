"""Versions at both ends of the window that setup.cfg states, for .ci/run.

python .ci/versions.py floors [EXTRA ...]   the oldest allowed versions, a requirements file for pip
python .ci/versions.py show [FLOORS]        what is installed; the exit status is 1 if it differs from that file
python .ci/versions.py extra EXTRA          what one extra adds, a requirements file for pip
python .ci/versions.py constraints          all that is installed, a constraints file for pip
"""

from __future__ import annotations

import platform
import sys
from configparser import ConfigParser
from importlib.metadata import distributions, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

SETUP = Path(__file__).resolve().parent.parent / "setup.cfg"
TOOLS = {"glimpse-prune", "pip", "setuptools", "wheel"}  # gp itself, and what installs it


def required(extras: list[str]) -> list[Requirement]:
    """Returns what setup.cfg requires, and what these extras add."""
    lines = _setup()["options"]["install_requires"].strip().splitlines()
    return [*map(Requirement, lines), *(one for name in extras for one in added(name))]


def added(extra: str) -> list[Requirement]:
    """Returns what an extra adds."""
    return [Requirement(line) for line in _setup()["options.extras_require"][extra].strip().splitlines()]


def _setup() -> ConfigParser:
    config = ConfigParser()
    config.read(SETUP)
    return config


def floor(requirement: Requirement) -> str:
    """Pins a requirement to its lower end: `torch>=2.9,<2.16` -> `torch==2.9`.

    Raises:
        ValueError: it has no lower end, or several.
    """
    found = [part.version for part in requirement.specifier if part.operator == ">="]
    if len(found) != 1:
        raise ValueError(f"{SETUP.name}: expected one floor such as {requirement.name}>=1.0, got {str(requirement)!r}")
    return f"{requirement.name}=={found[0]}"


def differences(pins: list[str]) -> list[str]:
    """Lines for the pins that the installed versions do not meet; a local part such as `+cpu` does not count."""
    installed = {pin: version(pin.name) for pin in map(Requirement, pins)}
    return [f"{pin} was asked for, got {v}" for pin, v in installed.items() if Version(v).public not in pin.specifier]


def constraints() -> list[str]:
    """Lines `name==version` of everything installed, sorted, without local parts."""
    found = {canonicalize_name(d.metadata["Name"]): Version(d.version).public for d in distributions()}
    return [f"{name}=={found[name]}" for name in sorted(found.keys() - TOOLS)]


def show(path: str | None = None) -> int:
    """Prints the installed versions of what setup.cfg requires; returns 1 if they differ from the file's."""
    print(f"Python {platform.python_version()},", ", ".join(f"{r.name} {version(r.name)}" for r in required([])))
    wrong = differences(Path(path).read_text().split()) if path else []
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return int(bool(wrong))


def main(command: str, *arguments: str) -> int:
    if command == "show":
        return show(*arguments)
    if command == "floors":
        print("\n".join(map(floor, required(list(arguments)))))
    elif command == "extra":
        print("\n".join(map(str, added(*arguments))))
    elif command == "constraints":
        print("# Exactly what the tests were green with last. Written by `.ci/run --write-constraints`; do not edit.")
        print(f"# Python {platform.python_version()} on {platform.system()}.")
        print("\n".join(constraints()))
    else:
        raise ValueError(f"expected floors, show, extra or constraints, got {command!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
