"""Lines of a check of gp.doctor."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gp.doctor.report import Line


def by_name(check: Callable[[], Iterable[Line]]) -> dict[str, Line]:
    return {line.name: line for line in check()}
