"""Errors that name the stage of the work in which they happened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

WITH_OPTION, ABOVE = " (--traceback shows where)", " (the traceback above shows where)"


class StageFailed(RuntimeError):
    """Failure of a stage that is no mistake in settings, data or files: its traceback is needed to find the cause."""


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Names the stage in whatever error its body raises.

    Args:
        name: of the stage, as users should read it.

    Raises:
        ValueError, OSError: for an error of that kind.
        StageFailed: for any other. The original error is the cause of all of them.
    """
    try:
        yield
    except Exception as error:
        raise named(name, error) from error


def named(name: str, error: Exception, remedy: str = "") -> Exception:
    """Makes the error to raise from another one: `{name}: {error}; {remedy}`, of the kind that `stage` describes.

    A stage may be within another: their names are joined.
    """
    rest = f"; {remedy}" if remedy else ""
    for kind in (ValueError, OSError):
        if isinstance(error, kind):
            return kind(f"{name}: {str(error).removesuffix(WITH_OPTION)}{rest}{WITH_OPTION}")
    reason = str(error) if isinstance(error, StageFailed) else f"{type(error).__name__}: {error}"
    return StageFailed(f"{name}: {reason.removesuffix(ABOVE)}{rest}{ABOVE}")
