"""The record of what an unfinished build has done, so that the same command goes on from there.

A build keeps its unfinished shards and `state.json` in the folder `.{name}.unfinished` of its output. The state says
how long each shard was when the pass over the images was at a certain position; what was written later is cut off,
and the pass goes on from that position.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from gp.data.building.shard_file import ShardState
from gp.runs.differences import differences
from gp.runs.passing_lock import passing_lock
from gp.runs.writing import write_text

STATE = "state.json"
LOCK_WAIT_S = 10  # processes of a build that was killed need a moment to notice


@dataclass
class SavePoint:
    """A consistent point of the pass.

    Args:
        position: place in the source; everything before it is done.
        seen: one byte per image, 1 for those that came.
        shards: states, in the plan's order.
        packed: the pass is over and the shards are ended; they only need their names.
    """

    position: int
    seen: bytearray
    shards: list[ShardState]
    packed: bool = False


class Journal:
    """The folder of an unfinished build.

    Args:
        folder: see above.
        identity: options and sources that the result depends on, plain JSON values.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self.folder = folder
        self.identity = identity

    def load(self) -> SavePoint | None:
        """Point to go on from; None: nothing was kept.

        Raises:
            ValueError: the unfinished build had other options, or its state cannot be read.
        """
        path = self.folder / STATE
        if not path.exists():
            return None
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            there = saved["identity"]
            shards = [ShardState.from_json(shard) for shard in saved["shards"]]
            seen = bytearray(ord(mark) - ord("0") for mark in saved["seen"])
            progress = SavePoint(saved["position"], seen, shards, saved["packed"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not the state of a build ({error}); delete {self.folder}") from error
        remedy = f"finish it with those options, delete {self.folder}, or give another name= or out="
        refuse_other(there, self.identity, f"{self.folder} holds an unfinished build", remedy)
        return progress

    def save(self, progress: SavePoint) -> None:
        """Replaces the state at once."""
        content = {
            "identity": self.identity,
            "position": progress.position,
            "packed": progress.packed,
            "shards": [shard.to_json() for shard in progress.shards],
            "seen": progress.seen.translate(bytes.maketrans(b"\0\1", b"01")).decode(),
        }
        write_text(self.folder / STATE, json.dumps(content))

    def shard_path(self, number: int) -> Path:
        """Path of a shard while it is not ended and named."""
        return self.folder / f"{number:06d}.tar.tmp"

    def clean(self, keep: set[str]) -> None:
        """Deletes what an earlier attempt left behind, except for the files to keep."""
        for path in self.folder.iterdir():
            if path.name not in keep and path.name != STATE:
                path.unlink()

    def remove(self) -> None:
        """The build is finished."""
        self.clean(set())
        (self.folder / STATE).unlink(missing_ok=True)
        self.folder.rmdir()


@contextmanager
def only_build(out: Path, name: str) -> Iterator[None]:
    """Holds the lock of this name's builds in this folder; child processes hold it with us, even beyond our end.

    Raises:
        ValueError: another build of the name is at work.
    """
    path = out / f".{name}.lock"
    with ExitStack() as held:
        try:
            held.enter_context(passing_lock(path, LOCK_WAIT_S))
        except Timeout as error:
            raise ValueError(f"{path}: another build of {name!r} is at work in {out}") from error
        yield


def refuse_other(there: dict[str, Any], now: dict[str, Any], what: str, remedy: str) -> None:
    """ValueError naming the first difference between two nested mappings of plain JSON values."""
    if found := differences(there, json.loads(json.dumps(now))):
        first = found[0]
        raise ValueError(
            f"{what} that was made with {first.key} {first.there!r}, this one has {first.here!r}; {remedy}"
        )
