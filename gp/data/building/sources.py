"""Sources of images: a folder, or a tar, whole or in pieces, walked once from front to back."""

from __future__ import annotations

import tarfile
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gp.data.building.keys import ROOT, image_key, wanted_key, with_val
from gp.data.building.members import Member, Window, next_member
from gp.data.building.pieces import Pieces, expand_paths, order_pieces
from gp.data.sample import IMAGE_SUFFIXES

IMAGES = tuple(f".{suffix}" for suffix in IMAGE_SUFFIXES)
NOTES = (".md", ".txt", ".json", ".jsonl")  # may lie beside pieces
PIECES_FOLDER = "cot_images_tar_split"  # in a download of the whole repository


@dataclass(frozen=True, slots=True)
class Found:
    """An image that somebody wants.

    Args:
        key: the wanted one.
        at: place of its bytes: offset in the stream, or path of the file.
        size: bytes.
        position: going on from here finds this image and all after it.
    """

    key: str
    at: int | str
    size: int
    position: int


class Source(Protocol):
    """Images by key."""

    def walk(self, wanted: Collection[str], position: int = 0) -> Iterator[Found]:
        """The wanted images in the source's own order, from `position`; a key may come twice."""

    def read(self, found: Found) -> bytes:
        """The bytes of an image; may be called in other processes."""

    def fraction(self, position: int) -> float:
        """Share of a walk that is done at `position`, 0..1."""

    def describe(self) -> dict[str, Any]:
        """Names and sizes, as plain JSON values: what a resumed build must find again."""


def open_source(entries: Sequence[str]) -> Source:
    """Opens what `images` names. A folder that holds files, none of them an image by name or content, holds pieces.

    Raises:
        FileNotFoundError: nothing there, or a piece missing.
        ValueError: a gap in the pieces' numbers, or the first is not the beginning of a plain tar.
    """
    paths = expand_paths(entries)
    if len(paths) == 1 and paths[0].is_dir():
        inside = paths[0] / PIECES_FOLDER if (paths[0] / PIECES_FOLDER).is_dir() else paths[0]
        visible = sorted(path for path in inside.iterdir() if not path.name.startswith("."))
        if _are_images(visible):
            return ImageFolder(inside)
        paths = [path for path in visible if path.suffix not in NOTES]
    return TarStream(order_pieces(paths))


class TarStream:
    """A tar, read in one pass.

    The walk pulls every block through memory once, in order, and so into the system's cache, where the processes that
    pack images find them: bytes are not sent between processes.

    Args:
        paths: the pieces in order; one for a whole tar.
    """

    def __init__(self, paths: Sequence[Path]):
        if not paths or not _starts_a_tar(paths[0]):
            raise ValueError(
                f"images {paths[0] if paths else None}: not the beginning of a plain tar; "
                "expected an uncompressed tar, its first piece, or an image folder"
            )
        self.pieces = Pieces(paths)

    def walk(self, wanted: Collection[str], position: int = 0) -> Iterator[Found]:
        """Raises ValueError, naming the piece, where the archive is damaged or ends too early."""
        for member in self._members(position):
            key = image_key(member.name) if member.regular else None
            answered = None if key is None else wanted_key(key, wanted)
            if answered is not None:
                yield Found(answered, member.data, member.size, member.header)

    def read(self, found: Found) -> bytes:
        return self.pieces.read(int(found.at), found.size)

    def fraction(self, position: int) -> float:
        return position / self.pieces.total

    def describe(self) -> dict[str, Any]:
        return {"pieces": [[path.name, size] for path, size in zip(self.pieces.paths, self.pieces.sizes)]}

    def _members(self, position: int) -> Iterator[Member]:
        window = Window(self.pieces, position)
        try:
            while (member := next_member(window)) is not None:
                if member.data + member.size > self.pieces.total:
                    raise self._too_short(f"in the middle of {member.name}")
                yield member
                window.position = member.end
        except tarfile.TarError as error:
            if self.pieces.total - window.position < tarfile.BLOCKSIZE:
                raise self._too_short("in the middle of a header") from error
            raise self._damaged(window.position, str(error)) from error
        self._check_end(window.position)

    def _check_end(self, offset: int) -> None:
        """The end is two zero blocks, or the archive goes on where it was cut."""
        end = self.pieces.read(offset, 2 * tarfile.BLOCKSIZE)
        if len(end) < 2 * tarfile.BLOCKSIZE:
            raise self._too_short("without the two zero blocks that end a tar")
        if any(end):
            raise self._damaged(offset, "a single zero block where a header or the end must be")

    def _too_short(self, how: str) -> ValueError:
        return ValueError(
            f"piece {self.pieces.paths[-1]}: the archive ends {how}: "
            f"it is truncated, or pieces after it are missing{self._suspects()}"
        )

    def _damaged(self, offset: int, how: str) -> ValueError:
        return ValueError(f"{self.pieces.place(offset)}: the archive is damaged: {how}{self._suspects()}")

    def _suspects(self) -> str:
        shorter = self.pieces.shorter_than_others()
        named = ", ".join(str(path) for path in shorter)
        return f"; smaller than the others, perhaps incomplete: {named}" if shorter else ""


class ImageFolder:
    """Files below a folder, or below its folder `cot`.

    Args:
        folder: the one that `images` names.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise FileNotFoundError(f"images {folder}: no such folder")
        self.folder = folder / ROOT if (folder / ROOT).is_dir() else folder
        self._count = 1

    def walk(self, wanted: Collection[str], position: int = 0) -> Iterator[Found]:
        keys = sorted(wanted)
        self._count = max(1, len(keys))
        for number in range(position, len(keys)):
            path = next((p for p in self._paths(keys[number]) if p.is_file()), None)
            if path is not None:
                yield Found(keys[number], str(path), path.stat().st_size, number)

    def read(self, found: Found) -> bytes:
        return Path(str(found.at)).read_bytes()

    def fraction(self, position: int) -> float:
        return position / self._count

    def describe(self) -> dict[str, Any]:
        return {"folder": self.folder.name}

    def _paths(self, key: str) -> Iterator[Path]:
        """Where the image may lie: under its own name or in `val`, with accents composed or apart."""
        for name in (key, with_val(key)):
            yield from (self.folder / unicodedata.normalize(form, name) for form in ("NFC", "NFD"))


def _are_images(paths: Sequence[Path]) -> bool:
    """Whether a folder's contents are images or folders of such, and not pieces of a tar; pieces may begin anyhow."""
    if not paths or any(path.is_dir() or path.suffix.lower() in IMAGES for path in paths):
        return True
    return any(map(_begins_an_image, paths)) and not any(map(_starts_a_tar, paths))


def _begins_an_image(path: Path) -> bool:
    """`.jfif` and names without a suffix are common."""
    with path.open("rb") as file:
        start = file.read(12)
    return start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n")) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def _starts_a_tar(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
