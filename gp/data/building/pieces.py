"""A tar that was cut into pieces, read as the one file that it was."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from glob import glob
from itertools import pairwise
from pathlib import Path
from typing import Any

import braceexpand

MAX_NAMED = 5


def expand_paths(entries: Sequence[str]) -> list[Path]:
    """Paths, globs and braces -> paths, in the order given; a glob's are sorted.

    Raises:
        FileNotFoundError: a glob that matches nothing.
        ValueError: braces that do not match.
    """
    paths: list[Path] = []
    for entry in entries:
        try:
            patterns = list(braceexpand.braceexpand(entry))
        except ValueError as error:
            raise ValueError(f"{entry!r}: its braces do not match") from error
        for pattern in patterns:
            found = sorted(glob(pattern)) if re.search(r"[*?[]", pattern) and not Path(pattern).exists() else [pattern]
            if not found:
                raise FileNotFoundError(f"{pattern}: no such files")
            paths += map(Path, found)
    return paths


def order_pieces(paths: Sequence[Path]) -> list[Path]:
    """Pieces in the order of their numbers (`part-00`, `part2`, `xaa`).

    Raises:
        FileNotFoundError: a piece does not exist.
        ValueError: a number is missing between two pieces, or there twice, or the names have no numbers to go by.
    """
    if absent := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"piece {absent[0]}: no such file")
    if len(paths) == 1:
        return list(paths)
    numbered = sorted(zip(_numbers([path.name for path in paths]), paths))
    pairs = list(pairwise(numbered))
    if twice := [after for (number, _), (other, after) in pairs if number == other]:
        raise ValueError(f"piece {twice[0]} is given twice, or two pieces have its number")
    if gaps := [path for (number, path), (after, _) in pairs if after != number + 1]:
        expected = numbered[-1][0] - numbered[0][0] + 1
        named = ", ".join(path.name for path in gaps[:MAX_NAMED])
        raise ValueError(
            f"pieces in {paths[0].parent}: expected {expected} in a row, got {len(paths)}; missing after {named}"
        )
    return [path for _, path in numbered]


class Pieces:
    """Random access to the bytes of several files as if they were one; usable in several processes at once.

    Args:
        paths: in order.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)
        self.sizes = [path.stat().st_size for path in paths]
        self.starts = [sum(self.sizes[:number]) for number in range(len(paths))]
        self.total = sum(self.sizes)
        self._descriptors: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptors": {}}  # another process opens its own

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer at the end of the last piece."""
        parts = []
        while size > 0 and offset < self.total:
            number = self.number_at(offset)
            within = offset - self.starts[number]
            part = os.pread(self._descriptor(number), min(size, self.sizes[number] - within), within)
            if not part:
                raise ValueError(f"piece {self.paths[number]}: became shorter while it was read")
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def will_read(self, offset: int, size: int) -> None:
        """Lets the system fetch bytes that will be read soon, where it can be told."""
        if offset < self.total and hasattr(os, "posix_fadvise"):
            number = self.number_at(offset)
            within = offset - self.starts[number]
            os.posix_fadvise(self._descriptor(number), within, size, os.POSIX_FADV_WILLNEED)

    def number_at(self, offset: int) -> int:
        """Number of the piece that a byte is in; one behind the end is in the last."""
        return bisect_right(self.starts, min(offset, self.total - 1)) - 1

    def place(self, offset: int) -> str:
        """A byte's piece and place in it, for messages."""
        number = self.number_at(offset)
        return f"piece {self.paths[number]}, byte {offset - self.starts[number]}"

    def shorter_than_others(self) -> list[Path]:
        """Pieces before the last that are smaller than the largest: an incomplete download looks like this."""
        return [path for path, size in zip(self.paths[:-1], self.sizes) if size < max(self.sizes)]

    def _descriptor(self, number: int) -> int:
        if number not in self._descriptors:
            self._descriptors[number] = os.open(self.paths[number], os.O_RDONLY)
        return self._descriptors[number]


def _numbers(names: Sequence[str]) -> list[int]:
    """The counter in the names: the one run of digits in which they differ, or the letters that `split` appends."""
    parts = [re.split(r"(\d+)", name) for name in names]
    if len({tuple(part[::2]) for part in parts}) == 1:
        varying = [column for column in zip(*(part[1::2] for part in parts)) if len(set(column)) > 1]
        if len(varying) <= 1:
            return [int(digits) for digits in (varying[0] if varying else [0] * len(names))]
    for width in (2, 3, 4):
        tails = [name[-width:] for name in names]
        alike = len({name[:-width] for name in names}) == 1
        if alike and all(re.fullmatch("[a-z]+", tail) for tail in tails):
            return [_letters_number(tail) for tail in tails]
    raise ValueError(f"pieces {', '.join(sorted(names)[:MAX_NAMED])}: no one number in their names to order them by")


def _letters_number(text: str) -> int:
    """`split` counts aa, ab, ..., az, ba."""
    number = 0
    for letter in text:
        number = number * 26 + ord(letter) - ord("a")
    return number
