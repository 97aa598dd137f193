"""Libraries that are installed, beside the versions that gp was tested with; none of them is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata

from gp.doctor.report import OK, PROBLEM, WARNING, Line

DISTRIBUTION = "glimpse-prune"  # as setup.cfg names it
CORE = ("torch", "transformers", "lightning")  # what is looked for where gp runs without being installed


def check() -> Iterator[Line]:
    """Yields one line per library, those of extras too; where gp is not installed, those of `CORE`."""
    if installed_version(DISTRIBUTION) is None:
        yield Line(DISTRIBUTION, "not installed (pip install -e .), so nothing says which versions it wants", WARNING)
        for name in CORE:
            yield describe(name, installed_version(name), "", True, False)
        return
    from gp import window

    libraries = window.check()
    optional = optional_names()
    for library in libraries:
        yield describe(library.name, library.installed, library.tested, library.inside, plain(library.name) in optional)
    for name in sorted(optional - {plain(library.name) for library in libraries}):
        yield describe(name, installed_version(name), "", True, True)


def describe(name: str, installed: str | None, tested: str, inside: bool, optional: bool) -> Line:
    """One library against its window; a missing one is a problem unless it is optional."""
    window = f" (tested: {tested})" if tested else ""
    extra = ", optional" if optional else ""
    if installed is None:
        return Line(name, "not installed" + (extra or window), *(() if optional else (PROBLEM,)))
    if not inside:
        return Line(name, f"{installed} outside{window}{extra}", WARNING)
    return Line(name, f"{installed}{window}{extra}", OK)


def requirements() -> list[str]:
    """What setup.cfg requires, extras with their marker; `CORE` where gp is not installed."""
    return list(CORE) if installed_version(DISTRIBUTION) is None else metadata.requires(DISTRIBUTION) or []


def required_names() -> list[str]:
    """Distributions that gp cannot do without, as setup.cfg names them."""
    return [_name(text) for text in requirements() if "extra ==" not in text]


def optional_names() -> set[str]:
    """Distributions that only extras name, in plain form."""
    names = {plain(_name(text)) for text in requirements() if "extra ==" in text}
    return names - set(map(plain, required_names()))


def installed_version(name: str) -> str | None:
    """Version of a distribution; None: not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def plain(name: str) -> str:
    """The form in which two names of one distribution are the same."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0]
