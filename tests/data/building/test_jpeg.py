"""A JPEG is judged by its markers and tables; the verdict is that of decoding all of it, whatever is wrong with it."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import pytest
from PIL import Image

from gp.data.building.images import checked_image
from gp.data.building.jpeg import without_scans
from gp.data.sample import BadSample

KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "own tables": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "notes": {"comment": b"\xff\xd9 not the end", "icc_profile": b"p" * 200, "exif": b"Exif\0\0" + bytes(100)},
}
MODES = ("RGB", "L", "CMYK")


def noise(mode: str = "RGB", **options) -> bytes:
    channels = [Image.effect_noise((72, 56), 10 + 30 * number) for number in range(len(mode))]
    buffer = io.BytesIO()
    Image.merge(mode, channels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def decodes(data: bytes) -> bool:
    """In full size and colour."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception:
        return False
    return True


def passes(data: bytes) -> bool:
    try:
        checked_image(data, "x")
    except BadSample:
        return False
    return True


def flipped(data: bytes, rng: random.Random, last: int | None = None) -> bytes:
    at = rng.randrange(len(data) if last is None else last)
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def overwritten(data: bytes, rng: random.Random, what: Callable[[int], bytes]) -> bytes:
    at = rng.randrange(len(data))
    length = min(rng.randrange(1, 400), len(data) - at)
    return data[:at] + what(length) + data[at + length :]


def damages(data: bytes, rng: random.Random) -> list[bytes]:
    """One of each sort."""
    tail = rng.randrange(2, len(data))
    return [
        flipped(data, rng),
        flipped(data, rng, last=600),
        overwritten(data, rng, rng.randbytes),
        overwritten(data, rng, bytes),
        overwritten(data, rng, lambda _: b""),
        overwritten(data, rng, lambda length: b"\xff" * length),
        data[:tail] + bytes(len(data) - tail),
        data[:tail] + data[2:],
        data + data[tail:],
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere(kind, mode):
    data = noise(mode, **KINDS[kind])
    assert decodes(data) and passes(data)
    for length in range(0, len(data), 11):
        assert not decodes(data[:length]) and not passes(data[:length]), length
    for length in range(len(data) - 30, len(data)):
        assert decodes(data[:length]) == passes(data[:length]), length


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_anywhere(kind, mode):
    data, rng = noise(mode, **KINDS[kind]), random.Random(kind + mode)
    cases = [damaged for _ in range(60) for damaged in damages(data, rng)]
    verdicts = [decodes(case) for case in cases]
    assert [passes(case) for case in cases] == verdicts
    assert 60 < sum(verdicts) < len(cases) - 60


def test_the_decoders_own_words():
    """What is wrong is said by the decoder that saw all of the file, not by one that saw a few rows."""
    data = noise()
    with pytest.raises(BadSample, match=r"x: image .*truncated \(\d+ bytes"):
        checked_image(data[: len(data) // 2], "x")


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_not_decoded(kind):
    rest = without_scans(noise(**KINDS[kind]))
    with Image.open(io.BytesIO(rest)) as image:
        assert image.size == (16, 16)
    assert len(rest) < 1500


def test_tables_alone_decide():
    assert without_scans(noise(**KINDS["notes"])) == without_scans(noise())
    assert without_scans(noise(quality=60)) != without_scans(noise(quality=61))


def test_what_is_unusual_is_left_to_the_decoder():
    data = noise()
    tables = data.index(b"\xff\xdb")
    for unusual in (data[:tables] + b"\0" + data[tables:], data[:-2], data[:tables] + b"\xff\xd9", b"", data[2:]):
        assert without_scans(unusual) is None
    assert passes(data[:tables] + b"\0" + data[tables:]) == decodes(data[:tables] + b"\0" + data[tables:])
