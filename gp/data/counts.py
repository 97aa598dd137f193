"""The number of samples that shards hold, from the manifests in their folders."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Sequence
from pathlib import Path

from gp.data.manifest import Manifest, ShardEntry, check_size, is_url, manifest_place, read_manifest
from gp.data.shards import read_records

log = logging.getLogger(__name__)


def sample_counts(shards: Sequence[str]) -> list[int] | None:
    """Samples of each shard; None if one of them is in no manifest.

    Args:
        shards: paths and urls, as `resolve_shards` gives them.

    Raises:
        ValueError: a local shard has another size than its manifest says; a manifest that cannot be read.
        FileNotFoundError: a local shard does not exist.
    """
    entries = find_entries(shards)
    unknown = [shard for shard, entry in zip(shards, entries, strict=True) if entry is None]
    if unknown:
        if len(unknown) < len(shards):
            log.warning("%d of %d shards are in no manifest, e.g. %s", len(unknown), len(shards), unknown[0])
        return None
    return [entry.samples for entry in entries]


def counts_to_draw(shards: Sequence[str]) -> list[int] | None:
    """Samples of each shard, read from local ones if there is no manifest; None for others: a draw needs to know them.

    Raises:
        ValueError, FileNotFoundError: as of `sample_counts`, and a damaged shard.
    """
    known = sample_counts(shards)
    if known is not None:
        return known
    if not all(Path(shard).is_file() for shard in shards):
        log.warning("no manifest says how many samples %s and others have: the first ones are taken", shards[0])
        return None
    return [sum(1 for _ in read_records(shard, shard)) for shard in shards]


def count_samples(shards: Sequence[str], limit: int | None = None) -> int | None:
    """Samples of a split, at most `limit`, for an estimate of the time left.

    They come from manifests, or else from the headers of the tars, where several questions about one image count once.
    `limit` if these are not all local files.
    """
    known = sample_counts(shards)
    if known is not None:
        return sum(known) if limit is None else min(sum(known), limit)
    if not all(Path(shard).is_file() for shard in shards):
        return limit
    count = 0
    for shard in shards:
        try:
            with tarfile.open(shard) as tar:
                count += sum(name.endswith(".json") for name in tar.getnames())
        except tarfile.TarError:
            return limit  # reading it will say what is wrong
    return count if limit is None else min(count, limit)


def find_entries(shards: Sequence[str]) -> list[ShardEntry | None]:
    """Entry of each shard in the manifest beside it; None without one, and for the output of a `pipe:` command."""
    manifests: dict[str, Manifest | None] = {}
    entries: list[ShardEntry | None] = []
    for shard in shards:
        if shard.startswith("pipe:"):
            entries.append(None)
            continue
        folder = _folder_of(shard)
        if folder not in manifests:
            manifests[folder] = read_manifest(folder)
            _warn_if_unfinished(manifests[folder], folder)
        manifest = manifests[folder]
        entry = manifest.shards.get(Path(shard.partition("?")[0]).name) if manifest else None
        if entry is not None and not is_url(shard):
            check_size(Path(shard), entry)
        entries.append(entry)
    return entries


def place_of_manifest(shard: str) -> str:
    """Place of a shard's manifest, for messages."""
    return manifest_place(_folder_of(shard))


def _folder_of(shard: str) -> str:
    if not is_url(shard):
        return str(Path(shard).parent)
    path, mark, query = shard.partition("?")
    return path.rpartition("/")[0] + mark + query


def _warn_if_unfinished(manifest: Manifest | None, folder: str) -> None:
    for name, info in manifest.sets.items() if manifest else ():
        if info.get("complete") is False:
            log.warning("%s: set %s is not complete, its build was not finished", manifest_place(folder), name)
