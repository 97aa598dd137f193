"""Replies of a judge on disk, found by what was asked: nothing is asked twice, and a kill loses nothing.

Each process appends to a file of its own, a JSON line per reply, whole lines in one write. Only the last line of a file
can be half written (a kill while writing); it is not read, and nobody writes behind it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gp.runs.writing import naming


def key_of_request(request: Mapping[str, Any], protocol: str, version: int) -> str:
    """Hash of all that a reply depends on: model, messages, sampling settings, protocol and its version."""
    asked = json.dumps([request, protocol, version], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(asked.encode()).hexdigest()


class Replies:
    """The replies in a folder.

    Args:
        folder: made when the first reply is kept; what other processes add later is not seen.

    Raises:
        ValueError: a line that is no reply; names file and line.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / f"replies-{uuid.uuid4().hex[:12]}.jsonl"
        self._known: dict[str, str] = {}
        for path in sorted(folder.glob("replies-*.jsonl")):
            self._known |= _read(path)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> str | None:
        """The reply to a request; None: there is none."""
        return self._known.get(key)

    def keep(self, key: str, reply: str) -> None:
        """Writes a reply at once (OSError: the file cannot be written, named)."""
        self._known[key] = reply
        line = json.dumps({"key": key, "reply": reply}, ensure_ascii=False) + "\n"
        with naming(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab", buffering=0) as file:
                file.write(line.encode("utf-8", "backslashreplace"))


def _read(path: Path) -> dict[str, str]:
    replies = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            replies[str(entry["key"])] = str(entry["reply"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a reply ({error}); delete the file to ask again") from error
    return replies
