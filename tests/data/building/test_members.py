"""Members found by their headers alone, against tarfile."""

from __future__ import annotations

import io
import tarfile

import pytest

from gp.data.building.members import Window, next_member
from gp.data.building.pieces import Pieces
from tests.support.viscot_files import write_pieces


def archive(form: int) -> bytes:
    """Plain files, an empty one, a folder, links, and names that do not fit a plain header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, size in [
            ("a.jpg", 700),
            ("empty", 0),
            ("block", 512),
            ("d" * 90 + "/" + "x" * 40, 5),
            ("ümlaut.jpg", 1025),
        ]:
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
        for name, kind in [("folder", tarfile.DIRTYPE), ("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "" if kind == tarfile.DIRTYPE else "a.jpg"
            tar.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_tarfile(tmp_path, form):
    whole = archive(form)
    window, found = Window(Pieces(write_pieces(tmp_path, whole, 3)), 0), []
    while (member := next_member(window)) is not None:
        found.append((member.name, member.regular, member.data, member.size))
        window.seek(member.end)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        assert found == [(m.name, m.isreg(), m.offset_data, m.size) for m in tar]


def test_a_byte_that_is_wrong_is_noticed_by_the_checksum(tmp_path):
    whole = bytearray(archive(tarfile.GNU_FORMAT))
    whole[3] ^= 1
    with pytest.raises(tarfile.TarError, match="checksum"):
        next_member(Window(Pieces(write_pieces(tmp_path, bytes(whole), 2)), 0))
