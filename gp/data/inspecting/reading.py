"""Shards as they lie on disk: which files a path names, and their records."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from gp.data.sample import IMAGE_SUFFIXES
from gp.data.shards import Record, local_shards, stored_records


@dataclass(frozen=True)
class StoredRecord:
    """An image and its questions.

    Args:
        where: shard and key.
        image: bytes.
        size: width and height of the stored image, pixels.
        rows: objects in the shards' schema.
    """

    where: str
    image: bytes
    size: tuple[int, int]
    rows: list[dict[str, Any]]


def named_shards(path: str) -> list[Path]:
    """Shards that a path, braces, a glob or a folder names.

    Raises:
        FileNotFoundError: nothing there, a folder without shards, or without one that its manifest lists.
    """
    return local_shards("*.tar", Path(path)) if Path(path).is_dir() else local_shards(path, Path())


def inspected_records(shard: Path) -> Iterator[StoredRecord]:
    """Every record of a shard; ValueError, naming shard and key, for one that is not in the schema."""
    for record in stored_records(str(shard), shard.name):
        yield _inspected(record)


def _inspected(record: Record) -> StoredRecord:
    image = next((record.files[suffix] for suffix in IMAGE_SUFFIXES if suffix in record.files), None)
    if image is None or "json" not in record.files:
        raise ValueError(f"{record.where}: expected an image and a json, found {', '.join(sorted(record.files))}")
    try:
        given = json.loads(record.files["json"])
        with Image.open(io.BytesIO(image)) as opened:
            size = opened.size
    except (ValueError, OSError) as error:
        raise ValueError(f"{record.where}: {error}") from error
    return StoredRecord(record.where, image, size, given if isinstance(given, list) else [given])
