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
WRITE_BEHIND = 8 << 20  # bytes
MAX_SIZE = 8**11 - 1  # of a member
# A header is its name, mode and owner, size, time, checksum, and a rest. tarfile gives time 0, owner 0, mode 644.
HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
NAME, MODE_AND_OWNER, TIME, REST = HEADER[:100], HEADER[100:124], HEADER[135:148], HEADER[156:]
REST_SUM = sum(REST) + 8 * ord(" ")  # the checksum counts its own field as spaces


@dataclass
class ShardState:
    """State of an unfinished shard.

    Args:
        bytes: written.
        sha256: hash of those bytes, hexadecimal.
        images: records.
        samples: questions.
        skipped: reason -> questions that were meant for this shard and cannot be used.
        small: images of so few pixels that there is little to prune.
    """

    bytes: int = 0
    sha256: str = hashlib.sha256().hexdigest()
    images: int = 0
    samples: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    small: int = 0

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "skipped": dict(self.skipped)}

    @staticmethod
    def from_json(given: dict[str, Any]) -> ShardState:
        return ShardState(**{**given, "skipped": Counter(given["skipped"])})


class ShardFile:
    """Appends records to a tar.

    Headers carry no time and no owner, so the same records give the same bytes.

    Args:
        path: the unfinished file.
        state: place to go on from; what the file has behind that is cut off.

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
        self._behind = state.bytes

    def add(self, image: bytes, suffix: str, rows: Sequence[bytes]) -> None:
        """One record: an image and its questions, an object for one, a list for several."""
        key = f"{self.state.images:06d}"
        text = rows[0] if len(rows) == 1 else b"[" + b", ".join(rows) + b"]"
        parts = (_header(f"{key}.{suffix}", len(image)), image, _padding(len(image)))
        self._write(b"".join((*parts, _header(f"{key}.json", len(text)), text, _padding(len(text)))))
        self.state.images += 1
        self.state.samples += len(rows)

    def left_here(self) -> ShardState:
        """State to go on from, should the process end now."""
        self._file.flush()
        self.state.sha256 = self._digest.hexdigest()
        return ShardState.from_json(self.state.to_json())

    def end(self) -> None:
        """Ends the tar; the system begins to write what is left of it."""
        end = 2 * tarfile.BLOCKSIZE
        self._write(NUL * (end + -(self.state.bytes + end) % tarfile.RECORDSIZE))
        self._file.flush()
        self._write_behind()

    def close(self) -> ShardState:
        """Waits until the ended tar is on the disk."""
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
        if self.state.bytes - self._behind >= WRITE_BEHIND:
            self._write_behind()

    def _write_behind(self) -> None:
        """Lets the system write to the disk now what it would keep until `close` waits for it, where it can be told."""
        if hasattr(os, "posix_fadvise"):
            length = self.state.bytes - self._behind
            os.posix_fadvise(self._file.fileno(), self._behind, length, os.POSIX_FADV_DONTNEED)
        self._behind = self.state.bytes


def _header(name: str, size: int) -> bytes:
    """Tar header of a name and a size, as tarfile makes it, without composing the fields that are always the same."""
    if size > MAX_SIZE:
        raise ValueError(f"{name}: expected at most {MAX_SIZE} bytes, got {size}")
    head = name.encode("ascii").ljust(len(NAME), NUL) + MODE_AND_OWNER + b"%011o" % size + TIME
    return head + b"%06o\0 " % (sum(head) + REST_SUM) + REST


def _padding(size: int) -> bytes:
    return NUL * (-size % tarfile.BLOCKSIZE)
