"""Whole files: written beside their place and renamed, so that a kill leaves the old one or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in an error of the system: a full disk does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror or error}", str(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a place beside `path` to write to; it takes the place of `path` at the end, or goes after an error."""
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with naming(path):
            yield unfinished
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())  # or a crash of the machine could leave the new name with nothing behind it
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file, UTF-8."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces a file."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)
