"""Documents, conversations and scores of the tasks in this folder; the functions that their YAML files name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gp.data.sample import IMAGE_SUFFIXES, parse_record
from gp.data.shards import read_records, resolve_shards, shard_names
from gp.metrics import exact_match


def documents(paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Questions of shards in their order, with the bytes of their images.

    Raises:
        BadSample: a question that evaluate.py would skip; names shard and key.
    """
    for path, name in zip(paths, shard_names(paths), strict=True):
        for record in read_records(path, name):
            sample = parse_record(record)
            picture = next(record.files[suffix] for suffix in IMAGE_SUFFIXES if suffix in record.files)
            yield {
                "id": sample.id,
                "image": {"bytes": picture, "path": None},
                "question": sample.question,
                "answer": sample.answer,
                "dataset": sample.dataset,
            }


def from_shards(entries: Any) -> Any:
    """The data set of a task, from the one that lists its shards: rows with `shards`, entries as in a config's `data`,
    and `root`, the folder that they are relative to. Embedded data are built there at need.

    Args:
        entries: a `datasets.Dataset`.
    """
    from datasets import Dataset, Features, Image, Value

    paths = [path for row in entries for path in resolve_shards(list(row["shards"]), row["root"])]
    texts = dict.fromkeys(("id", "question", "answer", "dataset"), Value("string"))
    return Dataset.from_generator(
        _numbered,
        features=Features({**texts, "image": Image()}),
        gen_kwargs={"states": [_state(path) for path in paths]},
    )


def doc_to_visual(doc: Mapping[str, Any]) -> list[Any]:
    """The picture."""
    return [doc["image"]]


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """evaluate.py's exact match: without case, outer punctuation and leading article."""
    return {"exact_match": float(exact_match(results[0], doc["answer"]))}


def _numbered(states: Sequence[tuple]) -> Iterator[dict[str, Any]]:
    return documents([path for path, *_ in states])


def _state(path: str) -> tuple[str, int, int]:
    """What tells a shard from a newer one in its place: `datasets` keeps what it has read, by the arguments."""
    file = Path(path)
    return (path, file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else (path, 0, 0)
