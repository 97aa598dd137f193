"""Room on the disks where runs, data and downloaded models go; nothing is left there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gp.doctor.report import OK, WARNING, Line, attempt, tidy

GIB = 2**30
SHORT_BYTES = GIB  # the embedded shards and a run need a third of it
PLACES = {"runs": "runs", "data": "data"}  # defaults of gp/config/schema.py, which needs torch to be imported


def check() -> Iterator[Line]:
    """Yields one line per place: those of the configuration's defaults, below this folder, and the hub's cache."""
    for name, place in PLACES.items():
        yield attempt(name, describe, name, Path(place))
    yield attempt("Hugging Face cache", lambda: describe("Hugging Face cache", _hub_cache()))


def describe(name: str, place: Path) -> Line:
    """Free space and whether a file can be written; the nearest folder above counts if the place is yet to be made.

    Raises:
        OSError: nothing can be written there.
    """
    folder = place = place.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"gp.doctor")
            file.flush()
    except OSError as error:
        raise OSError(f"{tidy(folder)} cannot be written: {error.strerror}") from error
    free = shutil.disk_usage(folder).free
    new = "" if folder == place else ", to be made"
    text = f"{free / GIB:.1f} GiB free, writable: {tidy(place)}{new}"
    return Line(name, text, OK if free >= SHORT_BYTES else WARNING)


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)  # follows HF_HOME and HF_HUB_CACHE
