"""Steps from one member of a tar to the next, by their headers alone.

tarfile reads every kind of header, at some 50 us each; an archive of a million images would take a minute for that. So
plain headers, which nearly all are, are read here, and all others are left to tarfile.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass

from gp.data.building.pieces import Pieces

BLOCK = 1 << 20
AHEAD = 16 * BLOCK  # the disk is kept busy while headers are read
HEADER = tarfile.BLOCKSIZE
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
CHECKSUM = slice(148, 156)
SPACES = 8 * 32  # the checksum counts its own field as spaces


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a tar.

    Args:
        name: the archived one.
        regular: a file with bytes of its own, not a folder or a link.
        header: offset of its first header.
        data: offset of its bytes.
        size: bytes.
        end: offset of what follows.
    """

    name: str
    regular: bool
    header: int
    data: int
    size: int
    end: int


class Window:
    """The pieces as a file that jumps: read in whole blocks, in order."""

    def __init__(self, pieces: Pieces, position: int):
        self.pieces = pieces
        self.position = position
        self._start, self._block = 0, b""

    def tell(self) -> int:
        return self.position

    def seek(self, position: int) -> int:
        self.position = position
        return position

    def read(self, size: int) -> bytes:
        data = self.peek(size)
        self.position += len(data)
        return data

    def peek(self, size: int) -> bytes:
        """The next bytes; the position stays."""
        begin = self.position - self._start
        if not 0 <= begin <= begin + size <= len(self._block):
            self._advance()
            begin = self.position - self._start
        data = self._block[begin : begin + size]
        return data if len(data) == size else self.pieces.read(self.position, size)

    def _advance(self) -> None:
        """The next block, or one from the position if the next does not hold the header there."""
        following = self._start + len(self._block)
        near = 0 <= self.position - following < BLOCK - 2 * HEADER
        self._start = following if near else self.position
        self.pieces.will_read(self._start + AHEAD, BLOCK)
        self._block = self.pieces.read(self._start, BLOCK)


def next_member(window: Window) -> Member | None:
    """The member whose header is at the window's position; None at a zero block or the end of the bytes.

    Raises:
        tarfile.TarError: there is no header.
    """
    header = window.peek(HEADER)
    return _plain(header, window.position) or _any(header, window)


def _plain(header: bytes, offset: int) -> Member | None:
    """A regular file with a name in one field and a size in octal digits; None for anything else."""
    if header[156:157] not in REGULAR or header[345:346] != b"\0":
        return None
    try:
        size = int(header[124:136].rstrip(b"\0 "), 8)
        stored = int(header[CHECKSUM].rstrip(b"\0 "), 8)
        name = header[:100].partition(b"\0")[0].decode("utf-8")
    except ValueError:
        return None
    if sum(header) - sum(header[CHECKSUM]) + SPACES != stored or name.endswith("/"):
        return None
    return Member(name, True, offset, offset + HEADER, size, offset + HEADER + size + -size % HEADER)


def _any(header: bytes, window: Window) -> Member | None:
    offset = window.position
    if not header or header == bytes(HEADER):
        return None
    tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")  # says what is wrong, where TarFile sees an end
    tar = tarfile.TarFile(fileobj=window, mode="r")  # type: ignore[arg-type]  # has all that reading needs
    window.position = offset
    info = tar.firstmember  # type: ignore[attr-defined]  # public, but missing from typeshed
    if info is None:
        raise tarfile.ReadError("a header without its file")
    regular = info.isreg() and not info.issparse()
    return Member(info.name, regular, offset, info.offset_data, info.size, tar.offset)
