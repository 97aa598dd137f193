"""A shard while it is written: it can be left at any record and be taken up there, and ends as the same bytes."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NUL = b"\0"


@dataclass
class ShardState:
    """How far a shard is.

    Args:
        bytes: written.
        sha256: of those bytes, hexadecimal.
        images: records.
        samples: questions.
        skipped: reason -> questions that were meant for this shard and cannot be used.
    """

    bytes: int = 0
    sha256: str = hashlib.sha256().hexdigest()
    images: int = 0
    samples: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "skipped": dict(self.skipped)}

    @staticmethod
    def from_json(given: dict[str, Any]) -> ShardState:
        return ShardState(**{**given, "skipped": Counter(given["skipped"])})


class ShardFile:
    """Appends records to a tar.

    Headers carry no time and no owner, so the same records give the same bytes.

    Args:
        path: of the unfinished file.
        state: where to go on; what the file has behind that is cut off.

    Raises:
        ValueError: the file does not hold what the state says.
    """

    def __init__(self, path: Path, state: ShardState):
        self.path = path
        self.state = ShardState.from_json(state.to_json())
        self._file = path.open("r+b" if state.bytes else "wb")
        self._digest = hashlib.sha256()
        left = state.bytes
        while left and (block := self._file.read(min(left, 1 << 20))):
            self._digest.update(block)
            left -= len(block)
        if self._digest.hexdigest() != state.sha256:
            raise ValueError(f"{path}: not the unfinished shard that was left here; delete {path.parent} to start anew")
        self._file.truncate(state.bytes)
        self._file.seek(state.bytes)

    def add(self, image: bytes, suffix: str, rows: Sequence[bytes]) -> None:
        """One record: an image and its questions, an object for one, a list for several."""
        key = f"{self.state.images:06d}"
        text = rows[0] if len(rows) == 1 else b"[" + b", ".join(rows) + b"]"
        self._write(_header(f"{key}.{suffix}", len(image)))
        self._write(image)
        self._write(_padding(len(image)) + _header(f"{key}.json", len(text)) + text + _padding(len(text)))
        self.state.images += 1
        self.state.samples += len(rows)

    def left_here(self) -> ShardState:
        """What to go on from, should the process end now."""
        self._file.flush()
        self.state.sha256 = self._digest.hexdigest()
        return ShardState.from_json(self.state.to_json())

    def finish(self) -> ShardState:
        """Ends the tar and waits until it is on the disk."""
        end = 2 * tarfile.BLOCKSIZE
        self._write(NUL * (end + -(self.state.bytes + end) % tarfile.RECORDSIZE))
        state = self.left_here()
        os.fsync(self._file.fileno())
        self._file.close()
        return state

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise OSError(error.errno, f"cannot write shard: {error.strerror}", str(self.path)) from error
        self._digest.update(data)
        self.state.bytes += len(data)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)  # its defaults are time 0, owner 0, mode 644
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> bytes:
    return NUL * (-size % tarfile.BLOCKSIZE)
