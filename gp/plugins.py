"""Classes that other packages bring: by entry points, or by the name of a module."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points


@cache
def brought(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name; nothing is imported yet."""
    return {point.name: point for point in entry_points(group=group)}


def load_class(what: str, name: str, base: type, point: EntryPoint | None = None) -> type:
    """Imports a class.

    Args:
        what: it is to be, for messages: "pruner".
        name: users gave; without an entry point it is `package.module:Class`.
        base: that it must be derived from.
        point: the entry point of that name.

    Raises:
        ValueError: it cannot be imported, or is another thing; names it, its place and the reason.
    """
    where = f"{what} {name!r}" if point is None else f"{what} {name!r} ({point.value})"
    point = point or EntryPoint(name, name, what)
    try:
        found = import_module(point.module)
        for part in point.attr.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever a module of others does
        raise ValueError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        expected = f"{base.__module__}.{base.__qualname__}"
        raise ValueError(f"{where}: expected a class derived from {expected}, got {found!r}")
    return found
