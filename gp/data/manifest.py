"""`manifest.json` of a folder of shards: how many samples each holds, its size and its hash.

    {"format": 1,
     "shards": {"gqa-train-000000.tar": {"set": "gqa-train", "samples": 1000, "images": 812, "bytes": 104857600,
                                         "sha256": "..."}, ...},
     "sets":   {"gqa-train": {"samples": 20000, "complete": true, ...}, ...}}

Several builds may write shards of several sets into one folder: each replaces the entries of its own set, under a lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from webdataset.gopen import gopen

from gp.runs.passing_lock import passing_lock

MANIFEST = "manifest.json"
LOCK = ".manifest.lock"
FORMAT = 1
NOT_FOUND = 22  # exit status of curl -f for an answer of 400 or more


@dataclass(frozen=True)
class ShardEntry:
    """One shard.

    Args:
        set: what it is a part of, e.g. "gqa-train".
        samples: questions, what training sees.
        images: records with image bytes; several questions may share one.
        bytes: size of the file.
        sha256: of the file, hexadecimal.
    """

    set: str
    samples: int
    images: int
    bytes: int
    sha256: str


@dataclass
class Manifest:
    """File name -> shard, and set -> what is known of it (`samples`, `complete`, `source`, `options`, `skipped`)."""

    shards: dict[str, ShardEntry]
    sets: dict[str, dict[str, Any]]


def read_manifest(folder_or_url: str | Path) -> Manifest | None:
    """The manifest of a folder; None if it has none.

    Args:
        folder_or_url: a local folder, or the url of one (`http:`, `s3:`, `gs:`, `hf:`, ...).

    Raises:
        ValueError: the file is not a manifest, has another format, or its server cannot be reached.
    """
    place = manifest_place(folder_or_url)
    content = _download(place) if is_url(place) else _read(Path(place))
    return None if content is None else _parse(content, place)


def update_manifest(folder: Path, set_name: str, entries: dict[str, ShardEntry], info: dict[str, Any]) -> None:
    """Replaces what the folder's manifest says of one set; safe when several processes do so at once.

    Args:
        folder: of the shards.
        set_name: e.g. "gqa-train".
        entries: file name -> shard, all of this set.
        info: of the set.

    Raises:
        ValueError: an entry of another set, or the file there is not a manifest.
    """
    if wrong := [name for name, entry in entries.items() if entry.set != set_name]:
        raise ValueError(f"{manifest_place(folder)}: {wrong[0]} is of set {entries[wrong[0]].set!r}, not {set_name!r}")
    with passing_lock(folder / LOCK):
        manifest = read_manifest(folder) or Manifest({}, {})
        others = {name: entry for name, entry in manifest.shards.items() if entry.set != set_name}
        write_manifest(folder, Manifest({**others, **entries}, {**manifest.sets, set_name: info}))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the whole manifest beside its place and renames it; for a folder that is shared: `update_manifest`."""
    shards = {name: asdict(manifest.shards[name]) for name in sorted(manifest.shards)}
    sets = {name: manifest.sets[name] for name in sorted(manifest.sets)}
    text = json.dumps({"format": FORMAT, "shards": shards, "sets": sets}, indent=1)
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{MANIFEST}.", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        Path(unfinished).chmod(0o644)  # mkstemp makes it private
        os.replace(unfinished, Path(folder) / MANIFEST)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def check_size(path: Path, entry: ShardEntry) -> None:
    """ValueError, naming manifest and shard, if the file has another size than its entry says."""
    size = Path(path).stat().st_size
    if size != entry.bytes:
        place = manifest_place(Path(path).parent)
        raise ValueError(f"shard {path}: {place} says {entry.bytes} bytes, the file has {size}")


def check_shard(path: Path, entry: ShardEntry) -> None:
    """Reads the whole file; ValueError, naming manifest and shard, if its size or SHA-256 is not that of its entry."""
    check_size(path, entry)
    if (found := sha256_of(path)) != entry.sha256:
        place = manifest_place(Path(path).parent)
        raise ValueError(f"shard {path}: {place} says SHA-256 {entry.sha256}, the file has {found}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal, read piece by piece."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def manifest_place(folder_or_url: str | Path) -> str:
    """Path or url of the manifest; a query (such as an access token of the folder) stays at the end."""
    folder, mark, query = str(folder_or_url).partition("?") if is_url(folder_or_url) else (str(folder_or_url), "", "")
    return f"{folder.rstrip('/')}/{MANIFEST}{mark}{query}"


def is_url(place: str | Path) -> bool:
    """True if it names something elsewhere (`https://...`), not a file here."""
    return "://" in str(place)


def openable(url: str) -> str:
    """Url in a form that webdataset's `gopen` opens: it knows no `s3:` and is told to run the AWS client."""
    return f"pipe:aws s3 cp {shlex.quote(url)} -" if url.startswith("s3://") else url


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _download(url: str) -> bytes | None:
    """Content behind a url, None if there is no such file: curl's exit status tells that from a lost server."""
    stream = None
    try:
        stream = gopen(openable(url))
        content = stream.read()
        stream.close()
        return content
    except FileNotFoundError:
        return None  # file://
    except (OSError, ValueError) as error:
        status = getattr(stream, "status", None)
        if url.startswith("http") and status != NOT_FOUND:
            raise ValueError(f"{url}: cannot be read (curl's exit status {status})") from error
        return None


def _parse(content: bytes, place: str) -> Manifest:
    try:
        given = json.loads(content)
        if given["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {given['format']!r}")
        names = [field.name for field in fields(ShardEntry)]
        shards = {key: ShardEntry(**{name: entry[name] for name in names}) for key, entry in given["shards"].items()}
        for key, entry in shards.items():
            if not all(isinstance(getattr(entry, name), int) for name in ("samples", "images", "bytes")):
                raise ValueError(f"{key}: samples, images and bytes must be whole numbers")
        return Manifest(shards, dict(given["sets"]))
    except KeyError as error:
        raise ValueError(f"{place}: not a manifest of shards: no {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{place}: not a manifest of shards: {error}") from error
