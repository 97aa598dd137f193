"""The text of an answer while its tokens come: whole characters only, and nothing that would have to be taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BROKEN = "\ufffd"  # what a tokenizer writes for a character whose bytes are not all there


class GrowingText:
    """Text of token ids that come one by one.

    New ids are decoded behind a few of the ones before, because tokenizers put spaces between tokens, and not at the
    beginning of a text. Space around the answer, and what may be the beginning of a stop text, is held back.

    Args:
        tokenizer: of transformers.
        stops: texts before which the answer ends.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self.tokenizer, self.stops = tokenizer, tuple(stops)
        self.ids: list[int] = []
        self.sent = ""
        self.stopped = False
        self._text = ""  # of all ids up to `_read`, stripped on the left
        self._context, self._read = 0, 0  # where decoding begins, and how far it has come

    def add(self, token: int) -> str:
        """Takes the next id and returns what can be sent now."""
        self.ids.append(token)
        before = self._decode(self.ids[self._context : self._read])
        now = self._decode(self.ids[self._context :])
        if now.endswith(BROKEN) or len(now) <= len(before):
            return ""
        self._text = (self._text + now[len(before) :]).lstrip()
        self._context, self._read = self._read, len(self.ids)
        cut = cut_at(self._text, self.stops)
        self.stopped = len(cut) < len(self._text)
        return self._send(cut if self.stopped else cut[: len(cut) - self._held])

    def end(self) -> tuple[str, str]:
        """The whole answer, as it is decoded at once, and what has not been sent of it."""
        whole = cut_at(self._decode(self.ids).strip(), self.stops).strip()
        return whole, whole.removeprefix(self.sent) if whole.startswith(self.sent) else ""

    @property
    def _held(self) -> int:
        """Characters at the end that may begin a stop text."""
        most = min(max(map(len, self.stops), default=1) - 1, len(self._text))
        tails = (n for n in range(most, 0, -1) if any(stop.startswith(self._text[-n:]) for stop in self.stops))
        return next(tails, 0)

    def _send(self, text: str) -> str:
        new = text.rstrip()[len(self.sent) :]
        self.sent += new
        return new

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop text in it."""
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(found)] if found else text
