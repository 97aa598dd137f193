"""Shards: from what a config names to paths, and from a path to raw records. Nothing is decoded here."""

from __future__ import annotations

import glob
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO

import braceexpand
from webdataset import tariterators

from gp.config.schema import DataConfig
from gp.data.manifest import openable, read_manifest

TINY_PREFIX = "tiny:"
# what tarfile raises on damaged archives: a link to nothing is a KeyError, an absurd size one of memory or of overflow
UNREADABLE = (tarfile.TarError, OSError, EOFError, ValueError, KeyError, MemoryError, OverflowError)
PIPE = re.compile("pipe:", re.IGNORECASE)
END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class Record:
    """One question as it lies in a shard.

    Args:
        id: `{shard name}/{key}`, unique among the shards of a stream; see `shard_names`.
        shard: path or url.
        key: name inside the shard, without suffix; of one question of several about an image: `{name}.{index}`.
        files: suffix (lower case, no dot) -> bytes.
        name: of its files in the shard, without suffix; "": as `key`.
    """

    id: str
    shard: str
    key: str
    files: dict[str, bytes]
    name: str = ""

    @property
    def where(self) -> str:
        return f"shard {self.shard}, key {self.key}"


def resolve_shards(entries: Sequence[str], root: str | Path, allow_pipes: bool = False) -> list[str]:
    """Turns what a config names into shard paths and urls, in the order given.

    Args:
        entries: paths relative to `root` or absolute, urls (`http:`, `s3:`, `gs:`, `hf:`, ...), `pipe:` commands,
            each with braces ("gqa-{000000..000019}.tar"), paths also with wildcards ("gqa-*.tar", in sorted order),
            or "tiny:SPLIT", "tiny:SPLIT@ROWSxCOLUMNS", which build embedded data at need.
        root: folder of relative paths; the embedded data live in its subfolder `tiny`.
        allow_pipes: `pipe:` entries are commands that reading the shard runs; False refuses them.

    Returns:
        At least one path or url.

    Raises:
        FileNotFoundError: a local shard does not exist, or wildcards match none or not all that the manifest lists.
        ValueError: no entries, an empty or malformed pattern, a command that was not allowed, or no such split of the
            embedded data.
    """
    if isinstance(entries, str):
        raise ValueError(f"expected a list of shards, got the text {entries!r}")
    if not entries:
        raise ValueError(f"no shards given: expected at least one path, url or {TINY_PREFIX}SPLIT (root {root})")
    return [shard for entry in entries for shard in _resolve(entry, Path(root), allow_pipes)]


def check_shards(key: str, entries: Sequence[str], data: DataConfig) -> None:
    """`resolve_shards` for its errors alone, which then name the option."""
    try:
        resolve_shards(entries, data.root, data.allow_pipes)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{key}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def local_shards(entry: str, root: Path) -> list[Path]:
    """Files that a path with braces or wildcards names; errors as of `resolve_shards`."""
    paths = [path for pattern in _braces(entry) for path in _local(pattern, root)]
    if missing := [path for path in paths if not path.is_file()]:
        more = f" (and {len(missing) - 1} more of the {len(paths)} named by {entry!r})" if len(missing) > 1 else ""
        raise FileNotFoundError(f"shard {missing[0]}: no such file{more}")
    return paths


def shard_names(shards: Sequence[str]) -> list[str]:
    """A short name for each shard: the end of its path, with as many folders as it takes to tell them apart."""
    parts = [_path_of(shard).removesuffix(".tar").strip("/").split("/") for shard in shards]
    for depth in range(1, max(len(p) for p in parts) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(set(shards)):
            break
    return names


def read_records(shard: str, name: str) -> Iterator[Record]:
    """Streams the questions of one shard; arguments and errors as of `stored_records`.

    A json that is a list of questions about one image becomes one record per question; they share the image's bytes.
    """
    for record in stored_records(shard, name):
        yield from _questions(record)


def stored_records(shard: str, name: str) -> Iterator[Record]:
    """Streams one shard as it lies on disk, one record per image, through webdataset's own tar stages.

    Args:
        shard: path, url or `pipe:` command of a plain (not compressed) tar.
        name: of the shard in the records' ids.

    Raises:
        FileNotFoundError: no such local file.
        ValueError: the shard is truncated or is not a tar, two files of it have one name, or its command failed.
    """
    try:
        files = tariterators.tar_file_expander(_complete_tars(_opened(shard)))
        for sample in tariterators.group_by_keys(files):
            key = sample["__key__"]
            content = {suffix: data for suffix, data in sample.items() if not suffix.startswith("__")}
            yield Record(f"{name}/{key}", shard, key, content, key)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"shard {shard}: no such file") from error
    except UNREADABLE as error:
        # webdataset appends the stream to the message, and stream and url to the arguments.
        first = str(error.args[0]).split(" @ ")[0] if error.args else type(error).__name__
        reason = (isinstance(error, OSError) and error.strerror) or first
        raise ValueError(f"shard {shard}: truncated, or not a plain tar: {reason}") from error


def _opened(shard: str) -> Iterable[dict]:
    """The shard's stream; a local file is opened here, so that no part of its name is taken for a url or a command."""
    if Path(shard).is_file():
        return [{"url": shard, "stream": open(shard, "rb")}]
    return tariterators.url_opener([{"url": openable(shard)}])


def _questions(record: Record) -> Iterator[Record]:
    """Takes a record of several questions apart; a broken one stays whole, for `parse_record` to say why."""
    text = record.files.get("json", b"").lstrip()
    try:
        questions = json.loads(text) if text.startswith(b"[") else None
    except (ValueError, RecursionError):
        questions = None
    if not questions:
        yield record
        return
    for index, question in enumerate(questions):
        files = {**record.files, "json": json.dumps(question).encode()}
        yield Record(f"{record.id}.{index}", record.shard, f"{record.key}.{index}", files, record.key)


def _resolve(entry: str, root: Path, allow_pipes: bool) -> list[str]:
    if not entry.strip():
        raise ValueError(f"empty shard pattern {entry!r}: expected a path, url or {TINY_PREFIX}SPLIT (root {root})")
    if entry.startswith(TINY_PREFIX):
        return _tiny_shards(entry, root)
    if PIPE.match(entry) and not allow_pipes:
        raise ValueError(f"shards {entry!r}: a command, which reading would run; data.allow_pipes=true lets it")
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:", entry):  # a url, or pipe:
        return _braces(entry)
    return [str(path) for path in local_shards(entry, root)]


def _braces(entry: str) -> list[str]:
    try:
        return list(braceexpand.braceexpand(entry))
    except ValueError as error:
        raise ValueError(f"shard pattern {entry!r}: its braces do not match") from error


def _local(pattern: str, root: Path) -> list[Path]:
    """The files that a path with wildcards names; a path without any names itself, whether there is such a file or not.

    A manifest knows what ought to be there: a shard that got lost must not go unnoticed because `*` does not miss it.
    """
    if not glob.has_magic(pattern) or (root / pattern).is_file():
        return [root / pattern]
    found = sorted(root / path for path in glob.glob(pattern, root_dir=root))
    if not found:
        raise FileNotFoundError(f"shards {root / pattern}: no file matches")
    for folder in sorted({path.parent for path in found}):
        manifest = read_manifest(folder)
        listed = [name for name in manifest.shards if fnmatch(name, Path(pattern).name)] if manifest else []
        if missing := sorted(name for name in listed if not (folder / name).is_file()):
            raise FileNotFoundError(f"shard {folder / missing[0]}: in the folder's manifest, but no such file")
    return found


def _tiny_shards(entry: str, root: Path) -> list[str]:
    from gp.data.card_shards import ensure_card_shards  # draws scenes: not needed to read shards

    return [str(path) for path in ensure_card_shards(root / "tiny", entry.removeprefix(TINY_PREFIX))]


def _path_of(shard: str) -> str:
    """The path in a url or in a `pipe:` command: its last word that names a tar, without the query."""
    if not shard.startswith("pipe:"):
        return shard.partition("?")[0]
    words = [word.partition("?")[0].strip("'\"") for word in shard.split()]
    return next((word for word in reversed(words) if word.endswith(".tar")), shard)


class _Tail:
    """A stream that remembers its last bytes: tarfile takes an archive that was cut between two blocks for complete."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.last = (self.last + data[-len(END_OF_TAR) :])[-len(END_OF_TAR) :]
        return data

    def check_end(self) -> None:
        while rest := self.read(1 << 16):
            if any(rest):
                raise tarfile.ReadError("more data after the end of the archive")
        if self.last != END_OF_TAR:
            raise tarfile.ReadError("the two zero blocks that end an archive are missing")


def _complete_tars(sources: Iterable[dict]) -> Iterator[dict]:
    """A stage between opening and expanding: once the expander is done with a tar, it must have ended properly."""
    for source in sources:
        tail = _Tail(source["stream"])
        yield {**source, "stream": tail}
        tail.check_end()
        source["stream"].close()  # a command that failed says so here
