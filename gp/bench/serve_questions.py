"""Questions of shards as a server is asked them: one picture, one text, the answer that is right."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gp.bench.options import OptionError
from gp.data.sample import Sample, parse_record
from gp.data.shards import read_records, resolve_shards, shard_names


@dataclass(frozen=True)
class Question:
    """What is sent, and what should come back.

    Args:
        messages: of a chat completion.
        answer: as in the shard.
    """

    messages: list[dict[str, Any]]
    answer: str


def read_questions(entries: Sequence[str], root: Path, count: int) -> list[Question]:
    """The first questions of some shards, as stored.

    Raises:
        OSError, ValueError: no such shard, or a damaged one.
        OptionError: they hold fewer.
    """
    found = [as_asked(sample) for sample in islice(_samples(resolve_shards(entries, root)), count)]
    if len(found) < count:
        raise OptionError(
            f"--data {' '.join(entries)}: {count} questions are needed (samples x concurrencies x rounds, and those "
            f"that warm up: none is asked twice), got {len(found)}"
        )
    return found


def as_asked(sample: Sample) -> Question:
    """A sample with its picture as a PNG in a data url: nothing is lost on the way."""
    assert sample.image is not None
    file = io.BytesIO()
    sample.image.save(file, "PNG", compress_level=1)
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": sample.question}]
    return Question([{"role": "user", "content": content}], sample.answer)


def _samples(shards: Sequence[str]) -> Iterator[Sample]:
    for shard, name in zip(shards, shard_names(shards), strict=True):
        yield from map(parse_record, read_records(shard, name))
