"""Annotation files -> checked rows. A line that cannot be used is counted, not fatal."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gp.data.building.benchmarks import VSTAR_QUESTIONS, benchmark_row, vstar_row
from gp.data.building.keys import FOLDERS
from gp.data.building.rows import Row, checked_row
from gp.data.sample import BadSample
from gp.data.skipping import SkipCounter

# what a line or entry says, and where it stands -> the image's path and the fields of the shards' schema
Reader = Callable[[Any, str], tuple[Any, dict[str, Any]]]


def read_annotations(paths: Sequence[Path], skips: SkipCounter) -> list[Row]:
    """Reads all usable questions, in the order of the files.

    Args:
        paths: Visual-CoT training `.jsonl`, own `.jsonl`, Visual-CoT benchmark `.json`, or folders of V*.
        skips: counts the lines, good and bad.

    Raises:
        ValueError: too many bad lines, a `.json` that is not a list, or a file of another kind.
    """
    rows = []
    for path in paths:
        for where, entry, reader in _entries(path):
            try:
                row = checked_row(*reader(entry, where), where)
            except BadSample as error:
                skips.bad(error)
                continue
            rows.append(row)
            skips.good()
            if row.mended:
                skips.mended[row.mended] += 1
    skips.finish(skips.seen)
    return rows


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of an annotation file; of V* of the question file."""
    content = _file_of(path).read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def check_annotation_path(path: Path) -> None:
    """FileNotFoundError or ValueError, before anything is read, for what `read_annotations` could not read."""
    if not path.exists():
        raise FileNotFoundError(f"annotations {path}: no such file")
    if path.is_dir() and not (path / VSTAR_QUESTIONS).is_file():
        raise FileNotFoundError(f"annotations {path}: a folder must be that of V* and hold {VSTAR_QUESTIONS}")
    if path.is_file() and path.suffix not in (".jsonl", ".json"):
        raise ValueError(f"annotations {path}: expected .jsonl, .json or a folder of V*")


def training_row(line: bytes, where: str) -> tuple[Any, dict[str, Any]]:
    """A line of Visual-CoT's training files (`bboxs`, image path below the set's folder), or of your own
    (`boxes_xyxy_px`, image path below the image folder; other fields as in the shards, most of them optional)."""
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadSample("wrong json", where, str(error)) from error
    if not isinstance(given, dict):
        raise BadSample("wrong json", where, f"expected an object, got a {type(given).__name__}")
    own = "boxes_xyxy_px" in given
    image, dataset = given.get("image"), given.get("dataset", "own" if own else None)
    if not own and isinstance(image, str) and isinstance(dataset, str):
        if image.startswith("/"):
            raise BadSample("unsafe image path", where, f"expected a path below the set's folder, got {image!r:.200}")
        image = f"{FOLDERS.get(dataset, dataset)}/{image}"
    file, _, number = where.rpartition(":")
    return image, {
        "question": given.get("question"),
        "answer": given.get("answer"),
        "boxes_xyxy_px": given.get("boxes_xyxy_px" if own else "bboxs"),
        "width": given.get("width"),
        "height": given.get("height"),
        "dataset": dataset,
        "split": given.get("split", "own" if own else None),
        "source_id": str(given["source_id"]) if "source_id" in given else f"{_stem(file)}:{number}",
    }


def _entries(path: Path) -> Iterator[tuple[str, Any, Reader]]:
    if path.is_dir():
        for where, line in _lines(path / VSTAR_QUESTIONS):
            yield where, line, lambda line, where: vstar_row(line, where, path)
    elif path.suffix == ".jsonl":
        for where, line in _lines(path):
            yield where, line, training_row
    else:
        for number, entry in enumerate(_list(path)):
            yield f"{path}, entry {number}", entry, benchmark_row


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}:{number}", line


def _list(path: Path) -> list[Any]:
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"annotations {path}: not JSON: {error}") from error
    if not isinstance(entries, list):
        raise ValueError(f"annotations {path}: expected the list of a benchmark, got a {type(entries).__name__}")
    return entries


def _stem(file: str) -> str:
    """`Path(file).stem`, quickly: it is needed for every line."""
    return os.path.splitext(os.path.basename(file))[0]


def _file_of(path: Path) -> Path:
    return path / VSTAR_QUESTIONS if path.is_dir() else path
