"""The window: versions of other libraries that gp was tested with, and whether the installed ones lie inside.

The only source is `install_requires` in setup.cfg, read from what pip made of it when gp was installed.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

DISTRIBUTION = "glimpse-prune"


@dataclass(frozen=True)
class Library:
    """A library that gp requires.

    Args:
        name: as setup.cfg has it.
        installed: its version; None: not installed.
        tested: the versions that gp was tested with, as a specifier such as `<5.25,>=5.18`; "" if every one will do.
        inside: whether it is installed in one of them. A pre-release or a local build counts as its release.
    """

    name: str
    installed: str | None
    tested: str
    inside: bool


def check() -> list[Library]:
    """Compares what is installed with what gp was tested with.

    Returns:
        One entry per required library in the order of setup.cfg, extras left out; none where gp itself is not
        installed, as in a checkout that is only on the path.
    """
    return [_look(name, tested) for name, tested in _requirements()]


def warn_outside() -> None:
    """Warns once if an installed library is outside the window; in worker processes and ranks above 0 it stays silent.

    Libraries that are missing are left to the import that needs them.
    """
    if _is_worker():
        return
    outside = [lib for lib in check() if lib.installed is not None and not lib.inside]
    if outside:
        found = "; ".join(f"{lib.name} {lib.installed}, tested: {lib.tested}" for lib in outside)
        message = f"gp was not tested with {found}. `pip install -c constraints.txt` gives exactly what was tested."
        warnings.warn(message, UserWarning, stacklevel=3)


def _is_worker() -> bool:
    """Tells if another process of the same program warns already: `multiprocessing` is imported in every worker."""
    workers = sys.modules.get("multiprocessing.process")
    return os.environ.get("LOCAL_RANK", "0") != "0" or (workers is not None and workers.parent_process() is not None)


def _requirements() -> Iterator[tuple[str, SpecifierSet]]:
    """Name and versions of each library that setup.cfg asks for; lines with a condition are those of the extras."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        if ";" not in line:  # packaging.requirements would take longer to import than all the rest
            name, versions = re.fullmatch(r"([\w.-]+)\s*(.*)", line).groups()
            yield name, SpecifierSet(versions)


def _look(name: str, tested: SpecifierSet) -> Library:
    try:
        installed = _version(name)
    except metadata.PackageNotFoundError:
        return Library(name, None, str(tested), False)
    return Library(name, installed, str(tested), _holds(tested, installed))


def _version(name: str) -> str:
    """Version of an installed library; `metadata.version` would parse the whole README that follows the first lines."""
    library = metadata.distribution(name)
    line = re.search(r"^Version: *(\S+)", library.read_text("METADATA") or "", re.MULTILINE)
    return line[1] if line else library.version


def _holds(tested: SpecifierSet, installed: str) -> bool:
    """Tells if the release that a version belongs to is in the window; text that is no version is not."""
    try:
        release = Version(installed).base_version
    except InvalidVersion:
        return False
    return tested.contains(release)
