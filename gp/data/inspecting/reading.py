"""Shards as the loader reads them: the same reading, decoding and checks, so what passes here passes in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gp.data.sample import BadSample, Sample, parse_record
from gp.data.shards import local_shards, read_records


def named_shards(entries: Sequence[str]) -> list[Path]:
    """Shards that folders, paths, braces and globs name, in order.

    Raises:
        FileNotFoundError: nothing there, a folder without shards, or without one that its manifest lists.
    """
    return [shard for entry in entries for shard in _named(entry)]


def inspected_samples(shard: Path) -> Iterator[tuple[Sample | BadSample, str]]:
    """Every question of a shard, or what is wrong with it, and the name of its record.

    Raises:
        ValueError: the shard cannot be read to its end.
    """
    for record in read_records(str(shard), shard.name):
        name = record.name or record.key
        try:
            yield parse_record(record), name
        except BadSample as error:
            yield error, name


def _named(entry: str) -> list[Path]:
    return local_shards("*.tar", Path(entry)) if Path(entry).is_dir() else local_shards(entry, Path())
