"""Shards as they lie on disk: which files a path names, and their records."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from gp.data.building.pieces import expand_paths
from gp.data.manifest import MANIFEST, read_manifest
from gp.data.sample import IMAGE_SUFFIXES


@dataclass(frozen=True)
class StoredRecord:
    """An image and its questions.

    Args:
        where: shard and key.
        image: bytes.
        size: of the stored image, width and height in pixels.
        rows: objects in the shards' schema.
    """

    where: str
    image: bytes
    size: tuple[int, int]
    rows: list[dict[str, Any]]


def named_shards(path: str) -> list[Path]:
    """A shard, braces or a glob, or a folder: its shards.

    Raises:
        FileNotFoundError: nothing there, a folder without shards, or without one that its manifest lists.
    """
    paths = expand_paths([path])
    if len(paths) == 1 and paths[0].is_dir():
        folder, paths = paths[0], sorted(paths[0].glob("*.tar"))
        manifest = read_manifest(folder)
        if gone := sorted(set(manifest.shards if manifest else ()) - {shard.name for shard in paths}):
            raise FileNotFoundError(
                f"shard {folder / gone[0]}: {folder / MANIFEST} lists it, but there is no such file"
            )
        if not paths:
            raise FileNotFoundError(f"{path}: no shards (*.tar) in this folder")
    if absent := [shard for shard in paths if not shard.is_file()]:
        raise FileNotFoundError(f"shard {absent[0]}: no such file")
    return paths


def stored_records(shard: Path) -> Iterator[StoredRecord]:
    """Every record of a shard; ValueError, naming shard and key, for one that is not in the schema."""
    try:
        with tarfile.open(shard, "r:") as tar:
            key, parts = None, {}
            for member in tar:
                stem, _, suffix = member.name.partition(".")
                if stem != key and parts:
                    yield _record(shard, str(key), parts)
                    parts = {}
                key = stem
                parts[suffix.lower()] = tar.extractfile(member).read()
            if parts:
                yield _record(shard, str(key), parts)
    except (tarfile.TarError, AttributeError) as error:
        raise ValueError(f"shard {shard}: truncated, or not a plain tar of files: {error}") from error


def _record(shard: Path, key: str, parts: dict[str, bytes]) -> StoredRecord:
    where = f"shard {shard}, key {key}"
    image = next((parts[suffix] for suffix in IMAGE_SUFFIXES if suffix in parts), None)
    if image is None or "json" not in parts:
        raise ValueError(f"{where}: expected an image and a json, found {', '.join(sorted(parts))}")
    try:
        given = json.loads(parts["json"])
        with Image.open(io.BytesIO(image)) as opened:
            size = opened.size
    except (ValueError, OSError) as error:
        raise ValueError(f"{where}: {error}") from error
    return StoredRecord(where, image, size, given if isinstance(given, list) else [given])
