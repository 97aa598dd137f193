"""Libraries that are installed, beside the versions that gp was tested with; none of them is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from gp.doctor.report import OK, PROBLEM, WARNING, Line

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

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

    libraries, extras = window.check(), wanted_by_extras()
    for library in libraries:
        optional = plain(library.name) in extras
        yield describe(library.name, library.installed, library.tested, library.inside, optional)
    listed = {plain(library.name) for library in libraries}
    for name, wanted in extras.items():
        if name not in listed:
            installed = installed_version(name)
            inside = installed is not None and wanted.contains(installed, prereleases=True)
            yield describe(name, installed, str(wanted), inside, True)


def describe(name: str, installed: str | None, tested: str, inside: bool, optional: bool) -> Line:
    """One library against its window; a missing one is a problem unless it is optional."""
    window = f" ({'wanted' if optional else 'tested'}: {tested})" if tested else ""
    extra = ", optional" if optional else ""
    if installed is None:
        return Line(name, "not installed" + (extra or window), *(() if optional else (PROBLEM,)))
    if not inside:
        return Line(name, f"{installed} outside{window}{extra}", WARNING)
    return Line(name, f"{installed}{window}{extra}", OK)


def requirements() -> list[str]:
    """Requirements of setup.cfg, extras with their marker; `CORE` where gp is not installed."""
    return list(CORE) if installed_version(DISTRIBUTION) is None else metadata.requires(DISTRIBUTION) or []


def required_names() -> list[str]:
    """Distributions that gp cannot do without, as setup.cfg names them."""
    return [_name(text) for text in requirements() if "extra ==" not in text]


def wanted_by_extras() -> dict[str, SpecifierSet]:
    """Versions of the distributions that only extras name, by their plain names."""
    from packaging.requirements import Requirement

    wanted = {plain(_name(text)): Requirement(text).specifier for text in requirements() if "extra ==" in text}
    required = set(map(plain, required_names()))
    return {name: wanted[name] for name in sorted(wanted.keys() - required)}


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
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
