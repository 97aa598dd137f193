"""The markers of a JPEG: whether it is whole can be seen without undoing its compression."""

from __future__ import annotations

import re

SOI, EOI, SOS = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
SEGMENTS = frozenset(bytes([0xFF, code]) for code in range(0xC0, 0xFF) if not 0xD0 <= code <= 0xD9)
FRAMES = frozenset(bytes([0xFF, code]) for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
HEIGHT = slice(5, 7)  # in the header of a frame
MAX_HEIGHT = 65500  # libjpeg refuses more
ROWS = 16  # at least one row of blocks, whatever the sampling
# Within a scan 0xFF is followed by 0 (a byte of data) or is a restart marker; anything else ends the scan.
END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")


def without_scans(data: bytes) -> bytes | None:
    """The headers and tables of a JPEG with nothing behind them: all that libjpeg can refuse in a whole file.

    Args:
        data: of a JPEG.

    Returns:
        A JPEG of the same headers and tables, a few rows high, without compressed data; None if the markers do not
        lead from the first to the last without a gap, with at least one scan on the way.

    Source: ITU-T T.81, annex B.
    """
    if not data.startswith(SOI):
        return None
    kept, at, scans = [SOI], len(SOI), 0
    while (marker := data[at : at + 2]) in SEGMENTS:
        segment = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
        kept.append(_low(segment) if marker in FRAMES else segment)
        at += len(segment)
        if marker == SOS:
            scans += 1
            found = END_OF_SCAN.search(data, at)
            if found is None:
                return None
            at = found.start()
    return b"".join([*kept, EOI]) if marker == EOI and scans else None


def _low(frame: bytes) -> bytes:
    """The header of a frame with its height reduced: what is not there need not be drawn."""
    height = int.from_bytes(frame[HEIGHT], "big")
    if not ROWS < height <= MAX_HEIGHT:
        return frame
    return frame[: HEIGHT.start] + ROWS.to_bytes(2, "big") + frame[HEIGHT.stop :]
