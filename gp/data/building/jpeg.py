"""The markers of a JPEG: whether it is whole can be seen without undoing its compression."""

from __future__ import annotations

import re

SOI, EOI, SOS = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
SEGMENTS = frozenset(bytes([0xFF, code]) for code in range(0xC0, 0xFF) if not 0xD0 <= code <= 0xD9)
FRAMES = frozenset(bytes([0xFF, code]) for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
# Camera data, profiles and comments: of the application segments, decoders look at JFIF's (0) and Adobe's (14) alone.
NOTES = frozenset(bytes([0xFF, code]) for code in (*range(0xE1, 0xEE), 0xEF, 0xFE))
HEIGHT, WIDTH = slice(5, 7), slice(7, 9)  # in the header of a frame
MAX_SIDE = 65500  # pixels; libjpeg refuses more
SMALL_SIDE = 16
# Within a scan 0xFF is followed by 0 (a byte of data) or is a restart marker; anything else ends the scan.
END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")


def without_scans(data: bytes) -> bytes | None:
    """The headers and tables of a JPEG with nothing behind them: all that libjpeg can refuse in a whole file.

    Args:
        data: bytes of a JPEG.

    Returns:
        A small JPEG of the same headers and tables, without compressed data, the same for all images of an encoder
        that uses the same tables; None if the markers do not lead from the first to the last without a gap, with at
        least one scan on the way.

    Source: ITU-T T.81, annex B.
    """
    if not data.startswith(SOI):
        return None
    kept, at, scans = [SOI], len(SOI), 0
    while (marker := data[at : at + 2]) in SEGMENTS:
        segment = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
        at += len(segment)
        if marker not in NOTES:
            kept.append(_small(segment) if marker in FRAMES else segment)
        if marker == SOS:
            scans += 1
            found = END_OF_SCAN.search(data, at)
            if found is None:
                return None
            at = found.start()
    return b"".join([*kept, EOI]) if marker == EOI and scans else None


def _small(frame: bytes) -> bytes:
    """The header of a frame with its sides reduced: what is not there need not be drawn."""
    return frame[: HEIGHT.start] + _reduced(frame[HEIGHT]) + _reduced(frame[WIDTH]) + frame[WIDTH.stop :]


def _reduced(side: bytes) -> bytes:
    return SMALL_SIDE.to_bytes(2, "big") if SMALL_SIDE < int.from_bytes(side, "big") <= MAX_SIDE else side
