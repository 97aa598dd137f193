"""An image's key: its path below `cot/`, the same for an annotation, a tar's member and a file of a folder."""

from __future__ import annotations

import unicodedata
from collections.abc import Container

ROOT = "cot"
# data set -> its image folder, where they differ
FOLDERS = {"textcap": "textvqa", "visual7w": "v7w"}


def image_key(path: str) -> str | None:
    """`./cot/gqa/1.jpg` -> `gqa/1.jpg`; None for a path that is absolute, climbs out, or names nothing.

    A path that has no folder `cot` is taken whole. Accented letters are composed (NFC); macOS writes them apart.
    """
    path = unicodedata.normalize("NFC", path)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        return None
    if ROOT in parts[:-1]:
        parts = parts[parts.index(ROOT) + 1 :]
    return "/".join(parts)


def with_val(key: str) -> str:
    """`openimages/1.jpg` -> `openimages/val/1.jpg`: where the official loader looks for an image that is missing."""
    folder, slash, name = key.partition("/")
    return f"{folder}/val/{name}" if slash else key


def wanted_key(key: str, wanted: Container[str]) -> str | None:
    """The wanted key that a file answers, by its own name or as the copy in `val`; None: nobody wants it."""
    if key in wanted:
        return key
    folder, _, name = key.partition("/val/")
    plain = f"{folder}/{name}"
    return plain if name and "/" not in folder and plain in wanted else None
